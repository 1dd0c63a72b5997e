"""Ending tasks: also those that lose a cancellation, and not for ever."""

from __future__ import annotations

import asyncio

from penstock.service.tasks import end_tasks


async def test_a_task_that_loses_cancellations_ends_all_the_same() -> None:
    lost = 0

    async def loses_two() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    tasks = [asyncio.create_task(loses_two()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0)
    assert await end_tasks(tasks, 10)
    assert all(task.cancelled() for task in tasks)
    assert lost == 2


async def test_a_task_that_does_not_end_is_given_up_in_time() -> None:
    may_end = asyncio.Event()

    async def stubborn() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    assert not await end_tasks([task], 0.05)
    may_end.set()
    await task


async def test_tasks_that_have_ended_need_no_wait() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    assert await end_tasks([task], 0)
    assert await end_tasks([], 0)
