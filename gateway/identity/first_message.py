"""Holds a call's first message against its signature, before anything of it is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from penstock.errors import Unauthenticated

FIRST_MESSAGE_SECONDS = 10.0
"""How long a stream's first message may take: until it comes, nobody is known to be calling."""


async def checked(incoming: Any, check: Callable[[bytes], Awaitable[None]]) -> Any:
    """The same message, or the same messages, once the first has passed the check.

    A stream without messages is checked as an empty one. Raises what ``check`` raises.
    """
    if isinstance(incoming, bytes):
        await check(incoming)
        return incoming
    messages = aiter(incoming)
    try:
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            first = await anext(messages, None)
    except TimeoutError:
        raise Unauthenticated("the signed stream's first message did not come") from None
    await check(first or b"")
    return _all(first, messages)


async def _all(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
        async for message in rest:
            yield message
