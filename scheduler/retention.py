"""Removes what is older than its tenant keeps it: contents of ledger rows, and kept payloads.

A row leaves its digest and a proof of its removal behind, so the chain still verifies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from penstock.service import keys as shared
from penstock.service.ledger.chains import Chain, SegmentMissing
from penstock.service.ledger.heads import read_heads
from penstock.service.ledger.links import Ledger, Link, LinkBroken
from penstock.service.ledger.segments import SegmentBroken
from penstock.service.objects import Objects
from penstock.service.tenants import Retention, TenantRecord
from scheduler import keys

log = logging.getLogger(__name__)

_TENANTS_A_READ = 500
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Defaults:
    """How long things are kept, in seconds, where their tenant does not say."""

    usage_events: float
    audit_events: float
    audit_payloads: float


class Sweeper:
    """Sweeps the chains and the payloads. Safe to run twice at once, and to be broken off."""

    def __init__(
        self,
        control: Redis,
        chains: tuple[Chain, Chain],
        payloads: Objects | None,
        defaults: Defaults,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = control
        self._chains = chains
        self._payloads = payloads
        self._defaults = defaults
        self._now = now

    async def sweep(self) -> int:
        """Removes everything whose time is over; the number of segments and payloads changed.

        Raises RedisError, DependencyUnavailable.
        """
        kept = await _read_kept(self._redis, self._defaults)
        changed = 0
        for chain in self._chains:
            changed += await self._sweep_chain(chain, kept)
        if self._payloads is not None:
            changed += await self._sweep_payloads(self._payloads, kept)
        return changed

    async def _sweep_chain(self, chain: Chain, kept: _Kept) -> int:
        """Walks on from the first segment that holds contents, to the first that is too young."""
        try:
            head = (await read_heads(self._redis, chain.key)).of(chain.ledger)
        except LinkBroken:
            log.error("the ledger's head in Redis was changed; nothing is removed")
            return 0
        swept = int(await _answer(self._redis.hget(keys.LEDGER_SWEPT, chain.ledger)) or 0)
        empty, changed = True, 0
        for segment in range(swept + 1, (head.segment if head else 0) + 1):
            try:
                link = await chain.link(segment)
                if link is None:
                    raise SegmentMissing
                over = self._over(link, chain, kept)
                if over:
                    link = await chain.remove(link, over)
                    await chain.sweep(link)
                    changed += 1
            except (LinkBroken, SegmentBroken, SegmentMissing) as broken:
                # Verification reports it; it must not keep the others' contents alive.
                told = {"ledger": chain.ledger, "segment": segment, "cause": str(broken)}
                log.error("a segment is broken", extra=told)
                empty = False
                continue
            empty = empty and not link.tenants
            if empty:
                await _answer(self._redis.hset(keys.LEDGER_SWEPT, chain.ledger, segment))
            if link.sealed_at + kept.shortest_events > self._now():
                # No later segment can hold anything whose time is over.
                break
        return changed

    def _over(self, link: Link, chain: Chain, kept: _Kept) -> frozenset[str]:
        """The tenants whose rows in the segment have had their time."""
        age = self._now() - link.newest_at
        return frozenset(
            tenant for tenant in link.tenants if kept.events(chain.ledger, tenant) <= age
        )

    async def _sweep_payloads(self, payloads: Objects, kept: _Kept) -> int:
        deleted = 0
        for tenant in await payloads.folders("payloads"):
            seconds = kept.payloads(tenant)
            for day in await payloads.folders(f"payloads/{tenant}"):
                if not _over(day, seconds, self._now()):
                    continue
                for path in await payloads.names(f"payloads/{tenant}/{day}"):
                    await payloads.delete(path)
                    deleted += 1
        return deleted


class _Kept:
    """How long each tenant keeps what, in seconds."""

    def __init__(
        self, retentions: Mapping[str, Retention], erased: frozenset[str], defaults: Defaults
    ) -> None:
        self._retentions = retentions
        self._erased = erased
        self._defaults = defaults
        times = [defaults.usage_events, defaults.audit_events]
        for retention in retentions.values():
            own = (retention.usage_events, retention.audit_events)
            times += [seconds for seconds in own if seconds is not None]
        self.shortest_events = min(times)

    def events(self, ledger: Ledger, tenant: str) -> float:
        own = self._retentions.get(tenant, _NO_RETENTION)
        if ledger == "usage":
            return _first(own.usage_events, self._defaults.usage_events)
        return _first(own.audit_events, self._defaults.audit_events)

    def payloads(self, tenant: str) -> float:
        """At most as long as the events they belong to; an erased tenant's go at once."""
        if tenant in self._erased:
            return -2 * _DAY_SECONDS
        own = self._retentions.get(tenant, _NO_RETENTION).audit_payloads
        return min(_first(own, self._defaults.audit_payloads), self.events("audit", tenant))


_NO_RETENTION = Retention()


def _first(own: float | None, default: float) -> float:
    return default if own is None else own


async def _read_kept(control: Redis, defaults: Defaults) -> _Kept:
    names = sorted(name.decode() for name in await _answer(control.smembers(shared.TENANTS)))
    retentions: dict[str, Retention] = {}
    erased = set()
    for start in range(0, len(names), _TENANTS_A_READ):
        some = names[start : start + _TENANTS_A_READ]
        for text in await control.mget([shared.tenant(name) for name in some]):
            if text is not None:
                record = TenantRecord.model_validate_json(text)
                retentions[record.id] = record.retention
                if record.state == "erased":
                    erased.add(record.id)
    return _Kept(retentions, frozenset(erased), defaults)


def _over(day: str, seconds: float, now: float) -> bool:
    """Whether everything of a day (YYYY-MM-DD, UTC) is older than that."""
    try:
        ends = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError:
        return False
    return ends.timestamp() + seconds <= now


async def _answer(result: Any) -> Any:
    """redis-py types its commands as both plain and awaitable."""
    return await result
