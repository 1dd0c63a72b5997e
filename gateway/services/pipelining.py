"""Answers several requests of one stream at once, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


async def as_ready(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
    most: int,
) -> AsyncGenerator[Response, None]:
    """Yields each answer as soon as it is there; reads no further while ``most`` wait.

    An answer waits until it is taken, so a slow reader slows the stream. The first exception, of an
    answer or of the requests, ends it; whatever ends it, nothing is left running.
    """
    ready: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    room = asyncio.Semaphore(most)
    running: set[asyncio.Task[Any]] = set()

    def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        running.add(task)
        task.add_done_callback(ready.put_nowait)
        return task

    async def read() -> None:
        async for request in requests:
            await room.acquire()
            begin(answer(request))

    reader = begin(read())
    try:
        while running:
            task = await ready.get()
            running.discard(task)
            result = task.result()
            if task is not reader:
                yield result
                room.release()
    finally:
        await _end(running)


async def in_order(
    requests: AsyncIterator[Request],
    begin: Callable[[Request], Coroutine[Any, Any, Response] | None],
    most: int,
) -> AsyncGenerator[tuple[Request, asyncio.Task[Response] | None], None]:
    """Yields each request with its answer under way, at most ``most`` at once.

    ``begin`` answers None for a request whose work should start only at its turn. Whatever ends it,
    nothing is left running.
    """
    ahead: asyncio.Queue[tuple[Request, asyncio.Task[Response] | None] | None] = asyncio.Queue()
    room = asyncio.Semaphore(most)
    running: set[asyncio.Task[Any]] = set()

    async def read() -> None:
        async for request in requests:
            await room.acquire()
            work = begin(request)
            task = None if work is None else asyncio.create_task(work)
            if task is not None:
                running.add(task)
                task.add_done_callback(running.discard)
            ahead.put_nowait((request, task))

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: ahead.put_nowait(None))
    try:
        while (item := await ahead.get()) is not None:
            yield item
            room.release()
        await reader
    finally:
        await _end({reader, *running})


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
