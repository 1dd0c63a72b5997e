"""How many requests a key may make: one central bucket, leased in pieces so calls need no Redis.

A lease is a debit of the central bucket by one atomic script, so all gateways together never admit
more than the bucket holds. What a gateway does not use in time is lost, never spent twice.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway import keys
from gateway.calls import Principal
from penstock.errors import DependencyUnavailable, RateLimited

LEASE_SECONDS = 10.0
"""How long leased requests may be used."""
LEASE_SHARE = 0.02
"""The share of a minute's requests that one lease takes."""

_SCRIPT = (Path(__file__).parent / "scripts" / "lease_requests.lua").read_text()


@dataclass(slots=True, eq=False)
class _Lease:
    left: int
    until: float
    asking: asyncio.Lock


class RequestLimits:
    """Requests a minute for each key, over all gateways."""

    def __init__(self, soft: Redis) -> None:
        self._lease = soft.register_script(_SCRIPT)
        self._leases: dict[str, _Lease] = {}

    async def admit(self, principal: Principal) -> None:
        """Counts one request; raises RateLimited, or DependencyUnavailable if Redis is away."""
        for quota in principal.quotas:
            if quota.limits.requests_per_minute is not None:
                await self._admit(quota.subject, quota.limits.requests_per_minute)

    async def _admit(self, subject: str, limit: int) -> None:
        lease = self._leases.get(subject)
        if lease is None:
            lease = self._leases[subject] = _Lease(0, 0.0, asyncio.Lock())
        if lease.left > 0 and time.monotonic() < lease.until:
            lease.left -= 1
            return
        async with lease.asking:
            if lease.left <= 0 or time.monotonic() >= lease.until:
                await self._renew(subject, limit, lease)
            lease.left -= 1

    async def _renew(self, subject: str, limit: int, lease: _Lease) -> None:
        asked = time.monotonic()
        wanted = max(1, int(limit * LEASE_SHARE))
        try:
            granted, wait_ms = await self._lease(
                keys=[keys.request_bucket(subject)], args=[limit, limit / 60.0, wanted]
            )
        except RedisError as error:
            raise DependencyUnavailable(
                "limits cannot be checked right now", retry_after_seconds=1.0
            ) from error
        if granted <= 0:
            raise RateLimited(f"{limit} requests a minute", max(0.001, wait_ms / 1000))
        lease.left, lease.until = granted, asked + LEASE_SECONDS
