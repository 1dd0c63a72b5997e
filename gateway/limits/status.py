"""What is left of a principal's limits and budgets now, over all gateways."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway import keys
from gateway.calls import Principal, Quota
from gateway.limits.budgets import period_of
from gateway.limits.rates import LEASE_SECONDS
from penstock.errors import DependencyUnavailable
from penstock.service import keys as shared
from penstock.service.quotas import Budget


@dataclass(frozen=True, slots=True)
class LimitLeft:
    """One limit."""

    kind: str
    """``requests``, ``units`` or ``calls``."""
    subject: str
    """Of the quota."""
    model: str
    limit: int
    remaining: int
    full_at: float | None
    """Unix seconds; None where nothing refills."""


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """One budget."""

    subject: str
    model: str
    budget: Budget
    spent: int
    reserved: int
    until: float
    """Unix seconds; infinite for a total."""


@dataclass(frozen=True, slots=True)
class Left:
    """Everything that bounds a principal's calls."""

    limits: tuple[LimitLeft, ...]
    budgets: tuple[BudgetLeft, ...]


class LimitStatus:
    """Reads what all gateways together have left. Reading changes nothing."""

    def __init__(self, soft: Redis, control: Redis) -> None:
        self._soft = soft
        self._control = control

    async def left(self, principal: Principal) -> Left:
        """Raises DependencyUnavailable when Redis is away."""
        quotas = [(quota, "") for quota in principal.quotas]
        quotas += [(quota, model) for model, quota in sorted(principal.model_quotas.items())]
        try:
            limits = [one for quota, model in quotas for one in await self._limits(quota, model)]
            budgets = [one for quota, model in quotas for one in await self._budgets(quota, model)]
        except RedisError as error:
            raise DependencyUnavailable(
                "limits cannot be read right now", retry_after_seconds=1.0
            ) from error
        return Left(tuple(limits), tuple(budgets))

    async def _limits(self, quota: Quota, model: str) -> list[LimitLeft]:
        found = []
        limits, subject = quota.limits, quota.subject
        for kind, limit in (
            ("requests", limits.requests_per_minute),
            ("units", limits.units_per_minute),
        ):
            if limit is not None:
                fields = await self._hash(self._soft, keys.bucket(kind, subject))
                left, full_at = _rate_left(fields, limit, time.time())
                found.append(LimitLeft(kind, subject, model, limit, left, full_at))
        if limits.concurrent_calls is not None:
            fields = await self._hash(self._soft, keys.slots(subject))
            left = max(0, limits.concurrent_calls - _held(fields, time.time()))
            found.append(LimitLeft("calls", subject, model, limits.concurrent_calls, left, None))
        return found

    async def _budgets(self, quota: Quota, model: str) -> list[BudgetLeft]:
        found = []
        for budget in quota.budgets:
            period, until = period_of(budget, time.time())
            counted = budget.currency or str(budget.unit)
            fields = await self._hash(self._control, shared.budget(quota.subject, counted, period))
            reserved = sum(int(v) for name, v in fields.items() if name.startswith(b"r:"))
            spent = int(fields.get(b"spent", 0))
            found.append(BudgetLeft(quota.subject, model, budget, spent, max(0, reserved), until))
        return found

    async def _hash(self, redis: Redis, key: str) -> dict[bytes, bytes]:
        return await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(key))


def _rate_left(fields: dict[bytes, bytes], limit: int, now: float) -> tuple[int, float]:
    """What all gateways can still use, and when it is all there again."""
    rate = limit / 60.0
    if b"level" not in fields:
        return limit, now
    level = float(fields[b"level"]) + rate * max(0.0, now - float(fields[b"at"]))
    # What a gateway has leased is there for its callers.
    leased = sum(
        int(value.split(b":")[0]) for name, value in fields.items() if _lives(name, value, now)
    )
    left = min(float(limit), level + leased)
    return max(0, int(left)), now + ((limit - left) / rate if rate else 0.0)


def _lives(name: bytes, value: bytes, now: float) -> bool:
    return b":" in name and now < float(value.split(b":")[2]) <= now + 2 * LEASE_SECONDS


def _held(fields: dict[bytes, bytes], now: float) -> int:
    holdings = [value.split(b":") for name, value in fields.items() if value.count(b":") == 2]
    return sum(int(held) for held, _, ends in holdings if float(ends) > now)
