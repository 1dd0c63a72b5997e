"""Admits calls against every quota of their principals, and keeps what is leased for that."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from weakref import WeakValueDictionary

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway import keys
from gateway.calls import Principal, Quota
from gateway.limits.budgets import Account
from gateway.limits.concurrency import Slots
from gateway.limits.desk import Desk, Member
from gateway.limits.rates import Bucket
from gateway.limits.scripts import declare_birth
from gateway.limits.tickets import UNLIMITED, Allowance, Plan, Prices, Ticket

MOST_PLANS = 10_000
"""Principals whose limits are kept in mind."""
_DECLARING_SECONDS = 0.2


class Admission:
    """The limits of one gateway, which is known to Redis as ``source``."""

    def __init__(self, soft: Redis, control: Redis, source: str, prices: Prices | None) -> None:
        self._soft = soft
        self._control = control
        self._source = source
        self._prices = prices
        self._rates = Desk(soft, self._declare)
        self._spending = Desk(control)
        self._plans: OrderedDict[str, tuple[Principal, Plan]] = OrderedDict()
        # Kept by plans, by open calls, and by the desk while anything is leased.
        self._buckets: WeakValueDictionary[tuple[str, str], Bucket] = WeakValueDictionary()
        self._slots: WeakValueDictionary[str, Slots] = WeakValueDictionary()
        self._accounts: WeakValueDictionary[tuple[str, str, int], Account] = WeakValueDictionary()

    def start(self) -> None:
        """Begins to lease."""
        self._rates.start()
        self._spending.start()

    async def stop(self) -> None:
        """Gives back what is leased, as far as Redis can be reached."""
        leased: list[Member] = [*self._buckets.values(), *self._slots.values()]
        purses: list[Member] = [account.purse() for account in self._accounts.values()]
        for one in (*leased, *purses):
            one.close()
        await asyncio.gather(self._rates.stop(leased), self._spending.stop(purses))

    async def admit(self, principal: Principal) -> Ticket:
        """Counts one request and one open call.

        Raises RateLimited, ConcurrencyLimited, or DependencyUnavailable if Redis is away and what
        is leased does not suffice.
        """
        if not principal.quotas and not principal.model_quotas:
            return UNLIMITED
        ticket = Ticket(self.plan(principal))
        await ticket.enter()
        return ticket

    def plan(self, principal: Principal) -> Plan:
        """What bounds the principal's calls."""
        known = self._plans.get(principal.key_id)
        if known is not None and known[0] is principal:
            return known[1]
        plan = Plan(
            tuple(self._allowance(quota) for quota in principal.quotas),
            {model: self._allowance(quota) for model, quota in principal.model_quotas.items()},
            self._prices,
        )
        self._plans[principal.key_id] = principal, plan
        self._plans.move_to_end(principal.key_id)
        if len(self._plans) > MOST_PLANS:
            self._plans.popitem(last=False)
        return plan

    def _allowance(self, quota: Quota) -> Allowance:
        limits = quota.limits
        return Allowance(
            self._bucket("requests", quota.subject, limits.requests_per_minute),
            self._bucket("units", quota.subject, limits.units_per_minute),
            self._slot(quota.subject, limits.concurrent_calls),
            tuple(
                self._account(quota.subject, index, quota) for index in range(len(quota.budgets))
            ),
        )

    def _bucket(self, kind: str, subject: str, limit: int | None) -> Bucket | None:
        if limit is None:
            return None
        bucket = self._buckets.get((kind, subject))
        if bucket is None:
            bucket = Bucket(kind, subject, limit, self._rates, self._source)
            self._buckets[kind, subject] = bucket
        bucket.limit = limit
        return bucket

    def _slot(self, subject: str, limit: int | None) -> Slots | None:
        if limit is None:
            return None
        slots = self._slots.get(subject)
        if slots is None:
            slots = Slots(subject, limit, self._rates, self._source)
            self._slots[subject] = slots
        slots.limit = limit
        return slots

    def _account(self, subject: str, index: int, quota: Quota) -> Account:
        budget = quota.budgets[index]
        place = (subject, budget.currency or str(budget.unit), budget.period)
        account = self._accounts.get(place)
        if account is None:
            account = Account(subject, budget, self._spending, self._source)
            self._accounts[place] = account
        account.budget = budget
        return account

    async def _declare(self) -> None:
        """Says of a soft Redis that knows no lease whether there can be any.

        If none was ever used, limits begin full. Otherwise what others hold is not known.
        """
        try:
            first = await self._control.set(keys.SOFT_KNOWN, 1, nx=True)
        except RedisError:
            first = False
        given_up = time.monotonic() + (0.0 if first else _DECLARING_SECONDS)
        while time.monotonic() < given_up:
            # Another gateway may be saying right now that this is the first.
            if await self._soft.exists(keys.SOFT_BIRTH):
                return
            await asyncio.sleep(_DECLARING_SECONDS / 10)
        question = declare_birth(bool(first))
        await self._soft.eval(question.script.text, 1, *question.keys, *question.args)
