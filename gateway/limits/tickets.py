"""What one call has taken of its limits: admitted, reserved, settled when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from gateway.families import family_of
from gateway.limits.budgets import Account, Purse
from gateway.limits.concurrency import Slots
from gateway.limits.pieces import Hold
from gateway.limits.rates import Bucket
from gateway.limits.together import all_or_nothing
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import BudgetExhausted

Spends = Sequence[tuple[str, int]]
"""(Redis key of a budget, units or millionths of the currency)."""
Headers = tuple[tuple[str, str], ...]


class Billed(Protocol):
    """What a ticket reads of its call."""

    method: str
    model: str
    tier: int
    usage: metadata_pb2.Usage | None


class Prices(Protocol):
    """What usage costs."""

    currency: str

    def cost_micros(self, family: int, model: str, tier: int, usage: metadata_pb2.Usage) -> int:
        """In millionths of the currency."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """One subject's limits at work."""

    requests: Bucket | None = None
    units: Bucket | None = None
    slots: Slots | None = None
    accounts: tuple[Account, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that bounds one principal's calls."""

    allowances: tuple[Allowance, ...] = ()
    """The key's and the tenant's."""
    models: Mapping[str, Allowance] = field(default_factory=dict)
    """The tenant's for single models."""
    prices: Prices | None = None


class Ticket:
    """One call's part of its limits; ``close`` it exactly once."""

    __slots__ = (
        "_accounts",
        "_buckets",
        "_holds",
        "_joined",
        "_plan",
        "_purses",
        "_requests",
        "_slots",
        "_spent",
    )

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests: list[Bucket] = []
        self._slots: list[Slots] = []
        self._buckets: list[Bucket] = []
        self._accounts: list[Account] = []
        self._holds: dict[Bucket, Hold] = {}
        self._purses: dict[Purse, int] = {}
        self._joined = False
        self._spent: Spends = ()

    @property
    def metered(self) -> bool:
        """Whether anything bounds what the call uses."""
        return bool(self._buckets or self._accounts)

    async def enter(self) -> None:
        """Counts one request and one open call, with everything or with nothing.

        Raises RateLimited, ConcurrencyLimited, DependencyUnavailable.
        """
        await self._enter(self._plan.allowances)

    async def join(self, model: str) -> None:
        """Counts the call against the model's own limits, once. Raises as ``enter`` does."""
        allowance = self._plan.models.get(model)
        if allowance is not None and not self._joined:
            # Before the wait: a stream's groups come side by side.
            self._joined = True
            try:
                await self._enter((allowance,))
            except BaseException:
                self._joined = False
                raise

    async def reserve(self, bound: metadata_pb2.Usage, call: Billed) -> None:
        """Reserves what a part of the call can use at most, of everything or of nothing.

        Raises RateLimited, BudgetExhausted, DependencyUnavailable.
        """
        now = time.monotonic()
        units = bound.input_units + bound.output_units
        purses = [
            (account.purse(), amount)
            for account in self._accounts
            if (amount := self._reserved_for(account, bound, call))
        ]
        buckets = self._buckets if units else ()
        if all(bucket.has(units, now) for bucket in buckets) and all(
            purse.has(amount) for purse, amount in purses
        ):
            for bucket in buckets:
                self._add(bucket, bucket.hold(units, now))
            for purse, amount in purses:
                purse.take(amount, now)
                self._purses[purse] = self._purses.get(purse, 0) + amount
            return
        await self._reserve_waiting(buckets, units, purses)

    def narrow(
        self, bound: metadata_pb2.Usage, used: metadata_pb2.Usage | None, call: Billed
    ) -> None:
        """Gives back what a part of the call did not use of what it had reserved."""
        left = bound.input_units + bound.output_units
        if used is not None:
            left -= used.input_units + used.output_units
        now = time.monotonic()
        for hold in self._holds.values():
            hold.release(left, now)
        for account in self._accounts:
            amount = self._reserved_for(account, bound, call)
            if used is not None:
                amount -= self._reserved_for(account, used, call)
            purse = account.purse()
            amount = min(amount, self._purses.get(purse, 0))
            if amount > 0:
                self._purses[purse] -= amount
                purse.settle(amount, 0)

    def spends(self, call: Billed) -> Spends:
        """What the call has taken out of budgets so far, or in the end."""
        return [
            *self._spent,
            *((purse.key, amount) for purse, amount in self._shares(call) if amount),
        ]

    def close(self, call: Billed) -> Spends:
        """Ends the call: settles on ``call.usage``; what it has taken out of budgets."""
        for slots in self._slots:
            slots.leave()
        self._slots = []
        usage = call.usage
        used = usage.input_units + usage.output_units if usage is not None else 0
        if self._holds:
            now = time.monotonic()
            for hold in self._holds.values():
                hold.settle(used, now)
            self._holds = {}
        if not self._purses:
            return ()
        shares = dict(self._shares(call))
        for purse, reserved in self._purses.items():
            purse.settle(reserved, shares.get(purse, 0))
        self._purses = {}
        self._spent = [(purse.key, amount) for purse, amount in shares.items() if amount]
        return self._spent

    def headers(self) -> Headers:
        """The x-ratelimit metadata: of all limits, the one that is nearest."""
        if not self._requests and not self._buckets:
            return ()
        now = time.monotonic()
        return _headers("requests", self._requests, now) + _headers("units", self._buckets, now)

    async def _enter(self, allowances: Sequence[Allowance]) -> None:
        now = time.monotonic()
        requests = [a.requests for a in allowances if a.requests is not None]
        slots = [a.slots for a in allowances if a.slots is not None]
        if all(bucket.has(1, now) for bucket in requests) and all(s.has(now) for s in slots):
            for bucket in requests:
                bucket.take(1, now)
            for one in slots:
                one.take(now)
        else:
            holds = await all_or_nothing(
                *[(bucket.acquire(1), _given_up) for bucket in requests],
                *[(one.acquire(), partial(_left, one)) for one in slots],
            )
            for hold in holds:
                if isinstance(hold, Hold):
                    hold.settle(1, now)
        self._requests += requests
        self._slots += slots
        self._buckets += [a.units for a in allowances if a.units is not None]
        self._accounts += [account for a in allowances for account in a.accounts]

    async def _reserve_waiting(
        self, buckets: Sequence[Bucket], units: int, purses: Sequence[tuple[Purse, int]]
    ) -> None:
        taken = await all_or_nothing(
            *[(bucket.acquire(units), _given_up) for bucket in buckets],
            *[
                (purse.acquire(amount), partial(_unspent, purse, amount))
                for purse, amount in purses
            ],
        )
        for bucket, hold in zip(buckets, taken, strict=False):
            self._add(bucket, hold)
        for purse, amount in purses:
            self._purses[purse] = self._purses.get(purse, 0) + amount

    def _add(self, bucket: Bucket, hold: Hold) -> None:
        known = self._holds.get(bucket)
        if known is None:
            self._holds[bucket] = hold
        else:
            known.join(hold)

    def _reserved_for(self, account: Account, usage: metadata_pb2.Usage, call: Billed) -> int:
        # One millionth more: the costs of a stream's groups, each rounded, can add up to less than
        # the rounded cost of all.
        amount = self._amount(account, usage, call)
        return amount + 1 if amount and account.budget.currency else amount

    def _amount(self, account: Account, usage: metadata_pb2.Usage, call: Billed) -> int:
        budget = account.budget
        if not budget.currency:
            same = usage.unit == budget.unit
            return usage.input_units + usage.output_units if same else 0
        prices = self._plan.prices
        if prices is None or prices.currency != budget.currency:
            raise BudgetExhausted(f"the budget is in {budget.currency}, and prices are not")
        return prices.cost_micros(family_of(call.method), call.model, call.tier, usage)

    def _shares(self, call: Billed) -> list[tuple[Purse, int]]:
        """What each purse pays. A stream may have reserved in two periods: the older pays first."""
        shares: list[tuple[Purse, int]] = []
        for account in self._accounts:
            mine = [purse for purse in self._purses if purse.account is account]
            if not mine or call.usage is None:
                continue
            left = self._amount(account, call.usage, call)
            for purse in mine[:-1]:
                shares.append((purse, min(left, self._purses[purse])))
                left -= shares[-1][1]
            shares.append((mine[-1], left))
        return shares


class _Unlimited(Ticket):
    """For callers whom nothing bounds."""

    __slots__ = ()

    def close(self, call: Billed) -> Spends:
        return ()


UNLIMITED = _Unlimited(Plan())
"""The ticket of every call that nothing bounds."""


def _given_up(hold: Hold) -> None:
    hold.settle(0, time.monotonic())


def _left(slots: Slots, _: None) -> None:
    slots.leave()


def _unspent(purse: Purse, amount: int, _: None) -> None:
    purse.settle(amount, 0)


def _headers(kind: str, buckets: Sequence[Bucket], now: float) -> Headers:
    if not buckets:
        return ()
    tightest = buckets[0]
    left, seconds = tightest.remaining(now)
    for bucket in buckets[1:]:
        other, other_seconds = bucket.remaining(now)
        if other < left:
            tightest, left, seconds = bucket, other, other_seconds
    return (
        (f"x-ratelimit-limit-{kind}", str(tightest.limit)),
        (f"x-ratelimit-remaining-{kind}", str(left)),
        (f"x-ratelimit-reset-{kind}", str(math.ceil(seconds))),
    )
