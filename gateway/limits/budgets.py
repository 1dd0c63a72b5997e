"""Budgets: one gateway's reserved slice of what a subject may spend in a day, a month or ever.

The control Redis (scripts/lease_budget.lua) grants a slice only while what is spent, all slices and
the new one fit the budget. A call reserves its upper bound from the slice, and is settled on what
it used; the ledger moves that from the slice to what is spent when it ships the call's event, and
frees the slice of a source that has ended. So a budget is never overdrawn. A request whose answer
was lost is repeated under its number until it is known.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.limits.desk import PATIENCE_SECONDS, Desk
from gateway.limits.scripts import OUTDATED, Question, Wish, lease_budget, read_budget
from penstock.errors import BudgetExhausted, DependencyUnavailable
from penstock.service import keys
from penstock.service.quotas import Budget

DAY, MONTH, TOTAL = 1, 2, 3
IDLE_SECONDS = 10.0
"""A slice that was not used for longer is given back."""
_KEPT_AFTER_SECONDS = 7 * 86_400
_SLICE_SHARE = 0.01
_SLICE_TRAFFIC_SECONDS = 5.0
_BELIEF_SECONDS = 1.0
_RESERVED_RETRY_SECONDS = 1.0

_numbers = itertools.count(1)


class Waiter:
    """A call that waits for a part of the budget."""

    __slots__ = ("amount", "future")

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Purse:
    """One budget in one period, as this gateway has it: units, or millionths of the currency."""

    def __init__(
        self, account: Account, period: tuple[str, float], desk: Desk, source: str
    ) -> None:
        self.account = account
        self.until = period[1]
        """Unix seconds; infinite for a total."""
        budget = account.budget
        self.key = keys.budget(account.subject, budget.currency or str(budget.unit), period[0])
        self._desk = desk
        self._source = source
        self._free = 0
        self._reserved = 0
        self._question: Question | None = None
        self._number = self._back = 0
        self._waiting: list[Waiter] = []
        self._asked_for: list[Waiter] = []
        self._taken = self._missed = 0
        self._speed = 0.0
        self._asked_at = self._last_used = -math.inf
        self._believed_until = -math.inf
        self._left = self._spent = 0
        self._refill_at = -math.inf
        self._low = 0
        self._closing = False

    def has(self, amount: int) -> bool:
        """Whether so much can be reserved without asking Redis."""
        return self._free >= amount

    def take(self, amount: int, now: float) -> None:
        """Reserves; ``has`` has just said that it is there."""
        self._free -= amount
        self._reserved += amount
        self._taken += amount
        self._last_used = now
        if self._free < self._low and now >= self._refill_at and self._question is None:
            self._desk.ask(self)
        else:
            self._desk.watch(self)

    async def acquire(self, amount: int) -> None:
        """Reserves, and asks Redis for more.

        Raises BudgetExhausted, and DependencyUnavailable when Redis does not answer in time.
        """
        now = time.monotonic()
        if self.has(amount):
            self.take(amount, now)
            return
        if amount > self.account.budget.amount:
            raise self._refusal(amount)
        if now < self._believed_until and amount - self._free > self._left:
            raise self._refusal(amount)
        self._last_used = now
        if self._desk.broken:
            self._missed = amount
            self._desk.ask(self)
            raise _unchecked()
        waiter = Waiter(amount)
        self._waiting.append(waiter)
        self._desk.ask(self, urgent=True)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await waiter.future
        except BaseException as error:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.settle(amount, 0)
            if isinstance(error, TimeoutError):
                self._desk.trip()
                raise _unchecked() from None
            raise

    def settle(self, reserved: int, used: int) -> None:
        """Ends a reservation. What was used leaves with the call's event; the ledger counts it."""
        self._reserved -= reserved
        # Below zero when a call used more than it had reserved: the next slice pays.
        self._free += reserved - used

    # What the desk asks

    def due(self, now: float) -> bool | None:
        """Whether there is something to give back."""
        if self._question is not None or self._waiting:
            return True
        idle = now - self._last_used > IDLE_SECONDS or self._over()
        if not idle:
            return False
        if self._free > 0:
            return True
        return False if self._reserved else None

    def question(self, now: float) -> Question | None:
        """Asks for what calls wait for and some in advance, or gives back what nobody uses."""
        if self._question is not None:
            # Not known yet whether it happened: the same again.
            return self._question
        self._serve(self._waiting, now)
        self._asked_for = [waiter for waiter in self._waiting if not waiter.future.done()]
        self._waiting = []
        wish = self._wish(now)
        idle = now - self._last_used > IDLE_SECONDS or self._closing or self._over()
        self._back = max(0, self._free) if idle and not self._asked_for else 0
        self._free -= self._back
        if not wish.wanted and not self._back:
            return None
        self._number = next(_numbers)
        self._asked_at = now
        holding = (self._source, self._number)
        expires = 0 if math.isinf(self.until) else int(self.until) + _KEPT_AFTER_SECONDS
        self._question = lease_budget(
            self.key, self.account.budget.amount, holding, self._back, wish, expires
        )
        return self._question

    def answered(self, answer: Any, asked: float, now: float) -> None:
        """Takes in the slice, and serves or refuses who waits."""
        self._question = None
        granted, self._spent, reserved = read_budget(answer)
        if granted != OUTDATED:
            self._free += granted
        self._left = max(0, self.account.budget.amount - self._spent - reserved)
        self._believed_until = now + _BELIEF_SECONDS
        if self._free < self._low:
            self._refill_at = now + _BELIEF_SECONDS
        self._serve(self._asked_for, now)
        for waiter in self._asked_for:
            if not waiter.future.done():
                waiter.future.set_exception(self._refusal(waiter.amount))
        self._asked_for = []
        self._serve(self._waiting, now)
        if any(not waiter.future.done() for waiter in self._waiting):
            self._desk.ask(self, urgent=True)

    def unanswered(self, asked: float, now: float) -> None:
        """Nothing is known; calls do not wait for it."""
        for waiter in (*self._asked_for, *self._waiting):
            if not waiter.future.done():
                waiter.future.set_exception(_unchecked())
        self._asked_for, self._waiting = [], []

    def close(self) -> None:
        """Wants what is not reserved given back with the next question."""
        self._closing = True

    def _over(self) -> bool:
        return time.time() >= self.until

    def _serve(self, waiters: list[Waiter], now: float) -> None:
        for waiter in waiters:
            if not waiter.future.done() and self.has(waiter.amount):
                self.take(waiter.amount, now)
                waiter.future.set_result(None)

    def _wish(self, now: float) -> Wish:
        calls = [waiter.amount for waiter in self._asked_for] or [self._missed][: self._missed]
        self._missed = 0
        needed = max(0, sum(calls) - self._free)
        least = max(0, min(calls, default=0) - self._free)
        elapsed = now - self._asked_at
        if elapsed > 0.05:
            self._speed = (self._speed + self._taken / elapsed) / 2
            self._taken = 0
        size = max(self.account.budget.amount * _SLICE_SHARE, self._speed * _SLICE_TRAFFIC_SECONDS)
        size = max(1, math.ceil(min(size, self.account.budget.amount / 4)))
        self._low = size // 2
        busy = now - self._last_used < IDLE_SECONDS and not self._closing and not self._over()
        spare = size if busy and self._free < max(1, self._low) else 0
        return Wish(least, needed, needed + spare)

    def _refusal(self, amount: int) -> BudgetExhausted:
        budget = self.account.budget
        period = {DAY: " a day", MONTH: " a month"}.get(budget.period, "")
        limit = f"{budget.amount:,} units{period}"
        if budget.currency:
            limit = f"{budget.amount / 1e6:,.2f} {budget.currency}{period}"
        retry: float | None = None
        if self._spent + amount <= budget.amount:
            # Only reserved, by calls that may use less.
            retry = _RESERVED_RETRY_SECONDS
        elif amount <= budget.amount and not math.isinf(self.until):
            retry = max(1.0, self.until - time.time())
        return BudgetExhausted(
            f"over the budget of {limit}",
            retry_after_seconds=retry,
            limit=limit,
            subject=self.account.subject,
        )


class Account:
    """One budget through its periods."""

    def __init__(self, subject: str, budget: Budget, desk: Desk, source: str) -> None:
        self.subject = subject
        self.budget = budget
        self._desk = desk
        self._source = source
        self._purse = Purse(self, period_of(budget, time.time()), desk, source)

    def purse(self) -> Purse:
        """Of the period that is now."""
        if time.time() >= self._purse.until:
            period = period_of(self.budget, time.time())
            self._purse = Purse(self, period, self._desk, self._source)
        return self._purse


def period_of(budget: Budget, at: float) -> tuple[str, float]:
    """The name of the budget's period at that time (Unix seconds, as the period's end), in UTC."""
    day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if budget.period == DAY:
        return day.strftime("%Y-%m-%d"), (day + timedelta(days=1)).timestamp()
    if budget.period == MONTH:
        after = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        return day.strftime("%Y-%m"), after.timestamp()
    return "total", math.inf


def _unchecked() -> DependencyUnavailable:
    return DependencyUnavailable("budgets cannot be checked right now", retry_after_seconds=1.0)
