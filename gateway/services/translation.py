"""Keeps large translations from holding up the calls of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

MANY_ITEMS = 500
"""Rows or texts; translating more takes milliseconds, and a thread yields to others meanwhile."""

P = ParamSpec("P")
T = TypeVar("T")


async def translated(items: int, translate: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``translate``, which runs in a thread when there are many items."""
    if items > MANY_ITEMS:
        return await asyncio.to_thread(translate, *args, **kwargs)
    return translate(*args, **kwargs)
