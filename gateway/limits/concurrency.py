"""Calls at a time: how many of a subject's slots this gateway holds, and how many are taken.

Redis (scripts/hold_slots.lua) knows what each gateway holds; the sum never exceeds the limit.
A holding ends TTL after it was granted unless it is renewed; its holder opens no calls after that
time by its own clock, counted from before it asked. So the slots of a gateway that is killed come
free. One that cannot reach Redis for longer keeps its open calls, which nobody can end for it, and
says so again when it can.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from gateway.limits.desk import PATIENCE_SECONDS, Desk
from gateway.limits.scripts import OUTDATED, Question, Wish, hold_slots, read_slots
from penstock.errors import ConcurrencyLimited, DependencyUnavailable

HOLD_SECONDS = 10.0
"""How long a holding lasts without a renewal (TTL)."""
RENEW_SECONDS = 2.0
RETRY_SECONDS = 0.5
"""When a refused call may come again."""
_INTEREST_SECONDS = 30.0
_SPARE_SHARE = 0.02
_SCARCE_SHARE = 0.25

_numbers = itertools.count(1)


class Slots:
    """One subject's calls at a time, as this gateway has them."""

    def __init__(self, subject: str, limit: int, desk: Desk, source: str) -> None:
        self.subject = subject
        self.limit = limit
        """Calls that may be open over all gateways."""
        self._desk = desk
        self._source = source
        self._held = 0
        self._used = 0
        self._until = 0.0
        self._busiest = 0
        self._surplus = 0
        self._scarce = False
        self._asking = False
        self._last_asked = self._last_used = 0.0
        self._waiting: list[asyncio.Future[None]] = []
        self._asked_for: list[asyncio.Future[None]] = []
        self._closing = False

    @property
    def used(self) -> int:
        """Calls open here."""
        return self._used

    def has(self, now: float) -> bool:
        """Whether a call can begin without asking Redis."""
        return self._used < self._held and now < self._until

    def take(self, now: float) -> None:
        """Begins a call; ``has`` has just said that it can."""
        self._used += 1
        self._last_used = now
        if self._used > self._busiest:
            self._busiest = self._used

    def leave(self) -> None:
        """Ends a call."""
        self._used -= 1
        if self._waiting:
            self._serve(self._waiting, time.monotonic())

    async def acquire(self) -> None:
        """Begins a call, and asks Redis for a slot.

        Raises ConcurrencyLimited, and DependencyUnavailable when Redis does not answer in time.
        """
        now = time.monotonic()
        if self.has(now):
            self.take(now)
            return
        if self.limit == 0:
            raise self._refusal(None)
        self._last_used = now
        if self._desk.broken:
            self._busiest = self._used + 1
            self._desk.ask(self)
            raise _unchecked()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._desk.ask(self, urgent=True)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.leave()
            if isinstance(error, TimeoutError):
                self._desk.trip()
                raise _unchecked() from None
            raise

    # What the desk asks

    def due(self, now: float) -> bool | None:
        """Whether the holding must be renewed, or has slots that others want."""
        self._surplus = self._held - max(self._busiest, self._used)
        self._busiest = self._used
        if self._asking:
            return False
        if not self._held and now - self._last_used > _INTEREST_SECONDS:
            return None
        if self._scarce and self._surplus > 0:
            return True
        return now - self._last_asked >= RENEW_SECONDS

    def question(self, now: float) -> Question | None:
        """Renews the holding: what is in use, what calls wait for, and some in advance."""
        self._serve(self._waiting, now)
        self._asked_for = [waiter for waiter in self._waiting if not waiter.done()]
        self._waiting = []
        needed = self._used + len(self._asked_for)
        wanted = max(needed, self._busiest)
        if not self._scarce and now - self._last_used < RENEW_SECONDS:
            wanted += max(1, int(self.limit * _SPARE_SHARE))
        if self._closing:
            needed = wanted = self._used
        # Given up first, and then said; kept only while it is still known to be ours.
        held = self._held if now < self._until else self._used
        self._held = max(self._used, min(held, wanted))
        self._asking = True
        self._last_asked = now
        self._number = next(_numbers)
        wish = Wish(0, needed, wanted)
        holding = (self._source, self._number)
        return hold_slots(self.subject, self.limit, holding, HOLD_SECONDS, self._held, wish)

    def answered(self, answer: Any, asked: float, now: float) -> None:
        """Takes in what is held now, and serves or refuses who waits."""
        self._asking = False
        held, free = read_slots(answer)
        if held != OUTDATED:
            self._held = max(self._used, held)
            self._until = asked + HOLD_SECONDS
            self._scarce = free < max(1, self.limit * _SCARCE_SHARE)
        self._serve(self._asked_for, now)
        for waiter in self._asked_for:
            if not waiter.done():
                waiter.set_exception(self._refusal(RETRY_SECONDS))
        self._asked_for = []
        if self._waiting:
            self._desk.ask(self, urgent=True)

    def unanswered(self, asked: float, now: float) -> None:
        """What was held is held until its time is over; what was asked for may be held in vain."""
        self._asking = False
        for waiter in (*self._asked_for, *self._waiting):
            if not waiter.done():
                waiter.set_exception(_unchecked())
        self._asked_for, self._waiting = [], []

    def close(self) -> None:
        """Wants everything that is not in use given back with the next question."""
        self._closing = True

    def _serve(self, waiters: list[asyncio.Future[None]], now: float) -> None:
        for waiter in waiters:
            if not waiter.done() and self.has(now):
                self.take(now)
                waiter.set_result(None)

    def _refusal(self, retry_after_seconds: float | None) -> ConcurrencyLimited:
        limit = f"{self.limit:,} calls at a time"
        return ConcurrencyLimited(
            f"over the limit of {limit}",
            retry_after_seconds=retry_after_seconds,
            limit=limit,
            subject=self.subject,
        )


def _unchecked() -> DependencyUnavailable:
    return DependencyUnavailable("limits cannot be checked right now", retry_after_seconds=1.0)
