"""A line's camera: what is on each picture, and where. `python examples/image_check.py *.png`"""

import asyncio
import sys

from penstock import AsyncClient


async def inspect(client: AsyncClient, path: str) -> None:
    """One picture; many of them run at once."""
    (seen,) = await client.detect_objects("scenes", path, min_score=0.5, timeout=2)
    found = ", ".join(f"{d.label} at {d.box[0]:.0f},{d.box[1]:.0f} ({d.score:.0%})" for d in seen)
    print(f"{path} ({seen.width}x{seen.height}): {found or 'nothing: take it off the line'}")


async def main() -> None:
    """Inspect every picture given."""
    async with AsyncClient() as client, asyncio.TaskGroup() as group:
        for path in sys.argv[1:]:
            group.create_task(inspect(client, path))


asyncio.run(main())
