"""Where limits ask Redis: one batch at a time, beside the calls, and a breaker for a Redis that is
slow or away.

Whoever needs an answer (a Member) is asked for its question when the batch leaves, so everything
that came up while the batch before was under way travels together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from gateway.limits.scripts import UNBORN, Question

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
"""How often members are asked whether they have something to say by themselves."""
SLOW_SECONDS = 0.1
"""Two answers in a row that take longer open the breaker: calls then wait for none."""
PATIENCE_SECONDS = 0.3
"""How long a call waits for an answer while the breaker is closed."""
TIMEOUT_SECONDS = 1.0
"""How long a batch waits; the client given to a desk has this timeout."""
_RETRY_SECONDS = 0.25
_GATHER_SECONDS = 0.004
_LARGEST_BATCH = 256


class Member(Protocol):
    """Something that is leased from Redis."""

    def due(self, now: float) -> bool | None:
        """Whether it has something to ask or say now; None ends the regular asking."""

    def question(self, now: float) -> Question | None:
        """What to ask now, if anything; an answer or the lack of one follows."""

    def answered(self, answer: Any, asked: float, now: float) -> None:
        """Takes in the answer to its question."""

    def unanswered(self, asked: float, now: float) -> None:
        """No answer came: what was asked may have happened or not."""

    def close(self) -> None:
        """Wants to give back what is not in use, with its next question."""


class Desk:
    """Asks one Redis for all members. Times are of ``time.monotonic()``."""

    def __init__(self, redis: Redis, declare: Callable[[], Awaitable[None]] | None = None) -> None:
        self._redis = redis
        self._declare = declare
        self._pending: dict[Member, None] = {}
        self._regular: dict[Member, None] = {}
        self._wake = asyncio.Event()
        self._urgent = False
        self._was_slow = False
        self._tasks: list[asyncio.Task[None]] = []
        self.broken = False
        """Whether calls must not wait for answers."""

    def start(self) -> None:
        """Begins to ask."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._tick())]

    async def stop(self, closing: Sequence[Member] = ()) -> None:
        """Ends asking, after one last batch for those who close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if closing and not self.broken:
            await self._ask(list(closing))

    def ask(self, member: Member, *, urgent: bool = False) -> None:
        """Has the member asked for its question soon; at once if a call waits."""
        self._pending[member] = None
        self._regular[member] = None
        self._urgent = self._urgent or urgent
        self._wake.set()

    def watch(self, member: Member) -> None:
        """Asks the member regularly whether it is due."""
        self._regular[member] = None

    def trip(self) -> None:
        """Opens the breaker: a call has waited in vain."""
        self.broken = True

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for member in list(self._regular):
                due = member.due(now)
                if due:
                    self._pending[member] = None
                elif due is None:
                    del self._regular[member]
            if self._pending:
                self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if not self._urgent:
                await asyncio.sleep(_GATHER_SECONDS)
            self._wake.clear()
            self._urgent = False
            members = list(self._pending)[:_LARGEST_BATCH]
            for member in members:
                del self._pending[member]
            try:
                answered = await self._ask(members)
            except Exception:
                log.exception("limits cannot be asked for")
                answered = False
            if self._pending:
                self._wake.set()
            if not answered:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _ask(self, members: Sequence[Member]) -> bool:
        asked = time.monotonic()
        asking = [(m, question) for m in members if (question := m.question(asked)) is not None]
        if not asking:
            return True
        try:
            answers = await self._answers([question for _, question in asking])
        except (RedisError, OSError) as error:
            if not self.broken:
                log.warning("limits cannot be asked for", extra={"cause": str(error)})
            answers = [error] * len(asking)
        now = time.monotonic()
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        slow = now - asked > SLOW_SECONDS
        self.broken = bool(failed) or (slow and self._was_slow)
        self._was_slow = slow or bool(failed)
        for (member, _), answer in zip(asking, answers, strict=True):
            if isinstance(answer, Exception):
                member.unanswered(asked, now)
            else:
                member.answered(answer, asked, now)
        return not failed

    async def _answers(self, questions: Sequence[Question]) -> list[Any]:
        answers = await self._send(questions)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # Redis has been started again; a script that it does not know has not run.
            for script in {questions[i].script for i in unknown}:
                await self._redis.script_load(script.text)
            await self._send_again(questions, answers, unknown)
        unborn = [i for i, answer in enumerate(answers) if _is_unborn(answer)]
        if unborn and self._declare is not None:
            await self._declare()
            await self._send_again(questions, answers, unborn)
        return [_no_answer() if _is_unborn(answer) else answer for answer in answers]

    async def _send_again(
        self, questions: Sequence[Question], answers: list[Any], places: Sequence[int]
    ) -> None:
        found = await self._send([questions[place] for place in places])
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer

    async def _send(self, questions: Sequence[Question]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for question in questions:
            pipe.evalsha(question.script.sha, len(question.keys), *question.keys, *question.args)
        return await pipe.execute(raise_on_error=False)


def _is_unborn(answer: Any) -> bool:
    return isinstance(answer, list) and answer[0] == UNBORN


def _no_answer() -> Exception:
    return RedisError("the soft Redis was emptied again")
