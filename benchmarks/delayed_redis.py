"""A Redis that answers late: passes bytes on, and holds the answers back for some seconds.

``python -m benchmarks.delayed_redis <port of the real one>`` prints its own port; each line of its
standard input is a new delay in seconds.
"""

from __future__ import annotations

import asyncio
import sys


class Delay:
    """How long answers are held back now."""

    def __init__(self) -> None:
        self.seconds = 0.0


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Delay | None
) -> None:
    try:
        while data := await reader.read(65_536):
            if delay is not None and delay.seconds:
                await asyncio.sleep(delay.seconds)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(port: int) -> None:
    """Serves until its standard input ends."""
    delay = Delay()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass_on(reader, up_writer, None), _pass_on(up_reader, writer, delay))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        delay.seconds = float(line)
        print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
