"""Waiting for several things at once, of which one alone is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Step = tuple[Coroutine[Any, Any, Any], Callable[[Any], object]]
"""What to wait for, and what undoes its result."""


async def all_or_nothing(*steps: Step) -> list[Any]:
    """The results, in order. If one fails or the caller leaves, the others are undone."""
    tasks = [asyncio.create_task(step) for step, _ in steps]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        _undo(tasks, steps)
        raise
    for task in tasks:
        if (error := task.exception()) is not None:
            _undo(tasks, steps)
            raise error
    return [task.result() for task in tasks]


def _undo(tasks: list[asyncio.Task[Any]], steps: tuple[Step, ...]) -> None:
    for task, (_, undo) in zip(tasks, steps, strict=True):
        if not task.cancelled() and task.exception() is None:
            undo(task.result())
