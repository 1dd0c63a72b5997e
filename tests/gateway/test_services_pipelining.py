"""Several requests of one stream at once: bounded, in order, leaving nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from gateway.services.pipelining import as_ready, in_order


class Work:
    """Answers that wait for their gate."""

    def __init__(self, count: int) -> None:
        self.gates = [asyncio.Event() for _ in range(count)]
        self.begun: list[int] = []
        self.cancelled: list[int] = []

    async def requests(self) -> AsyncIterator[int]:
        for number in range(len(self.gates)):
            yield number

    async def answer(self, number: int) -> int:
        self.begun.append(number)
        try:
            await self.gates[number].wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if number == 13:
            raise ValueError("thirteen")
        return number

    def begin(self, number: int) -> Coroutine[Any, Any, int] | None:
        return None if number == 7 else self.answer(number)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_answers_come_as_they_are_ready_and_are_begun_within_the_bound() -> None:
    work = Work(5)
    async with aclosing(as_ready(work.requests(), work.answer, 3)) as answers:
        work.gates[1].set()
        assert await anext(answers) == 1
        await settled()
        assert work.begun == [0, 1, 2]
        for gate in work.gates:
            gate.set()
        assert sorted([answer async for answer in answers]) == [0, 2, 3, 4]
    assert work.begun == [0, 1, 2, 3, 4]


async def test_an_answer_that_is_not_taken_holds_its_place() -> None:
    work = Work(10)
    for gate in work.gates:
        gate.set()
    async with aclosing(as_ready(work.requests(), work.answer, 2)) as answers:
        await anext(answers)
        await settled()
        assert len(work.begun) == 2


async def test_leaving_early_cancels_what_runs() -> None:
    work = Work(3)
    work.gates[0].set()
    async with aclosing(as_ready(work.requests(), work.answer, 3)) as answers:
        assert await anext(answers) == 0
        await settled()
    assert sorted(work.cancelled) == [1, 2]


async def test_the_first_exception_ends_the_stream() -> None:
    work = Work(20)
    work.gates[13].set()
    answers = as_ready(work.requests(), work.answer, 20)
    with pytest.raises(ValueError, match="thirteen"):
        await anext(answers)
    assert len(work.cancelled) == 19


async def test_an_exception_of_the_requests_ends_the_stream() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise ValueError("cut off")

    work = Work(1)
    with pytest.raises(ValueError, match="cut off"):
        async for _ in as_ready(broken(), work.answer, 2):
            pass
    assert work.cancelled == [0]
    with pytest.raises(ValueError, match="cut off"):
        async for _ in in_order(broken(), work.begin, 2):
            pass


async def test_in_order_keeps_the_order_and_works_ahead_within_the_bound() -> None:
    work = Work(10)
    for gate in work.gates[1:]:
        gate.set()
    seen = []
    async with aclosing(in_order(work.requests(), work.begin, 4)) as items:
        async for number, task in items:
            if number == 0:
                await settled()
                assert work.begun == [0, 1, 2, 3]
                work.gates[0].set()
            seen.append((number, None if task is None else await task))
    assert seen == [(number, None if number == 7 else number) for number in range(10)]


async def test_leaving_in_order_early_cancels_what_runs() -> None:
    work = Work(9)
    async with aclosing(in_order(work.requests(), work.begin, 3)) as items:
        await anext(items)
        await settled()
    assert sorted(work.cancelled) == [0, 1, 2]
