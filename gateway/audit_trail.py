"""The audit trail as one list, newest first: what is not sealed yet, then segment by segment.

A listing begins at the head of that moment. What was sealed since, and what is not sealed, is its
first part; each older segment is a part of its own. Within a part events go by the time they
ended. So a listing in pages misses nothing and repeats nothing while events are sealed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from redis.asyncio import Redis

from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service import keys
from penstock.service.ledger.chains import Chain, SegmentMissing
from penstock.service.ledger.heads import read_heads
from penstock.service.ledger.links import Link, LinkBroken
from penstock.service.ledger.outbox import Batch, batch_of
from penstock.service.ledger.segments import SegmentBroken, events_in

log = logging.getLogger(__name__)

CLOCK_SECONDS = 300.0
"""By how much the clocks of gateways and schedulers may differ."""
LATE_SECONDS = 86_400.0
"""How late an event may be sealed and still be found by a query for an older period."""
FILES_A_PAGE = 64
LINKS_A_PAGE = 2_000
"""After so many a page ends, whatever it holds: the caller goes on with its token."""
ENTRIES_A_READ = 200


@dataclass(frozen=True, slots=True)
class Query:
    """Which events; empty conditions are open. Times are microseconds since 1970."""

    start_us: int
    end_us: int
    tenant: str | None = None
    """None for all tenants; the empty name is nobody's calls."""
    key_id: str = ""
    method: str = ""
    """A full name, or a prefix that ends with *."""
    model: str = ""
    resource_id: str = ""
    request_id: str = ""
    subject: str = ""
    decision: int = 0

    def matches(self, event: CallEvent) -> bool:
        """Whether the event meets every condition."""
        if not self.start_us <= ended_us(event) < self.end_us:
            return False
        if self.tenant is not None and event.tenant != self.tenant:
            return False
        if self.method and not _named(event.method, self.method):
            return False
        for name in ("key_id", "model", "resource_id", "request_id", "subject", "decision"):
            wanted = getattr(self, name)
            if wanted and getattr(event, name) != wanted:
                return False
        return True


class Found(NamedTuple):
    """One event of the trail."""

    ended_us: int
    id: str
    event: CallEvent
    segment: int
    """0 while it is not sealed."""


class Position(NamedTuple):
    """Where a listing goes on: below ``top``, the head at its start, and after one event."""

    top: int
    part: int
    """``top`` + 1 is the first part; below that, segments by number."""
    ended_us: int = -1
    """Of the last event given; -1 at the beginning of the part."""
    id: str = ""


class AuditTrail:
    """Reads the outbox in Redis and the audit chain in the store."""

    def __init__(self, control: Redis, chain: Chain) -> None:
        self._redis = control
        self._chain = chain

    async def begin(self) -> Position:
        """The beginning of a new listing. Raises RedisError, LinkBroken."""
        top = await self._head()
        return Position(top, top + 1)

    async def page(
        self, query: Query, position: Position, size: int
    ) -> tuple[list[Found], Position | None]:
        """Up to ``size`` events and where the listing goes on; None at its end.

        A page may be short, even empty, before the end. Segments that cannot be read are logged and
        left out. Raises RedisError, DependencyUnavailable, LinkBroken.
        """
        found: list[Found] = []
        if position.part > position.top:
            recent = await self._recent(query, position.top)
            taken, more = _take(recent, position, size)
            found += taken
            if more:
                return found, after(position.top, found[-1])
            part = await self._latest_for(query, position.top)
            position = Position(position.top, part)
        return await self._older(query, position, size, found)

    async def _older(
        self, query: Query, position: Position, size: int, found: list[Found]
    ) -> tuple[list[Found], Position | None]:
        files = links = 0
        while position.part >= 1:
            if files >= FILES_A_PAGE or links >= LINKS_A_PAGE:
                return found, position
            links += 1
            link = await self._link(position.part)
            if link is not None:
                if link.sealed_at < query.start_us / 1e6 - CLOCK_SECONDS:
                    return found, None
                if _may_hold(link, query):
                    files += 1
                    events = await self._segment(link, query)
                    taken, more = _take(events, position, size - len(found))
                    found += taken
                    if more:
                        return found, after(position.top, taken[-1]) if taken else position
            position = Position(position.top, position.part - 1)
        return found, None

    async def _recent(self, query: Query, top: int) -> list[Found]:
        """What is not sealed, and what was sealed since the listing began."""
        # The outbox first: what is sealed meanwhile is then seen twice, not never.
        unsealed = await self._outbox(query)
        by_id = {one.id: one for one in unsealed}
        for segment in range(top + 1, await self._head() + 1):
            link = await self._link(segment)
            if link is not None and _may_hold(link, query):
                by_id |= {one.id: one for one in await self._segment(link, query)}
        return sorted(by_id.values(), key=_newest_first, reverse=True)

    async def _outbox(self, query: Query) -> list[Found]:
        found: list[Found] = []
        start = b"-"
        while True:
            entries = await _answer(
                self._redis.xrange(keys.LEDGER_OUTBOX, start, b"+", count=ENTRIES_A_READ)
            )
            if not entries:
                return found
            start = b"(" + entries[-1][0]
            batches = [batch_of(fields) for _, fields in entries]
            sources = [batch.source for batch in batches]
            marks = await _answer(self._redis.hmget(keys.LEDGER_SEALED, sources))
            sealed = [int(mark or 0) for mark in marks]
            found += await asyncio.to_thread(_unsealed, query, batches, sealed)

    async def _segment(self, link: Link, query: Query) -> list[Found]:
        try:
            data = await self._chain.data(link)
            return await asyncio.to_thread(_sealed, query, data, link.segment)
        except (SegmentBroken, SegmentMissing) as broken:
            log.error("a segment is broken", extra={"segment": link.segment, "cause": str(broken)})
            return []

    async def _link(self, segment: int) -> Link | None:
        try:
            return await self._chain.link(segment)
        except LinkBroken as broken:
            log.error("a segment is broken", extra={"segment": segment, "cause": str(broken)})
            return None

    async def _head(self) -> int:
        head = (await read_heads(self._redis, self._chain.key)).audit
        return head.segment if head else 0

    async def _latest_for(self, query: Query, top: int) -> int:
        """The last segment that can matter to a query that ends early, by halving."""
        latest = query.end_us / 1e6 + LATE_SECONDS
        head = await self._link(top) if top else None
        if head is None or head.sealed_at <= latest:
            return top
        low, high = 0, top
        while high - low > 1:
            middle = (low + high) // 2
            link = await self._link(middle)
            if link is None or link.sealed_at <= latest:
                low = middle
            else:
                high = middle
        return low


def ended_us(event: CallEvent) -> int:
    """When the call ended, in microseconds since 1970."""
    return event.started_us + event.duration_us


def after(top: int, last: Found) -> Position:
    """Where a listing that began at ``top`` goes on after an event."""
    part = last.segment if 0 < last.segment <= top else top + 1
    return Position(top, part, last.ended_us, last.id)


def _take(events: list[Found], position: Position, size: int) -> tuple[list[Found], bool]:
    """The next events of a sorted part, and whether there are more in it."""
    if position.ended_us >= 0:
        limit = (position.ended_us, position.id)
        events = [one for one in events if (one.ended_us, one.id) < limit]
    return events[:size], len(events) > size


def _newest_first(found: Found) -> tuple[int, str]:
    return found.ended_us, found.id


def _may_hold(link: Link, query: Query) -> bool:
    in_time = link.oldest_at <= query.end_us / 1e6 and link.newest_at >= query.start_us / 1e6
    return in_time and (query.tenant is None or query.tenant in link.tenants)


def _sealed(query: Query, data: bytes, segment: int) -> list[Found]:
    found = [
        Found(ended_us(event), event.id, event, segment)
        for event in events_in(data)
        if query.matches(event)
    ]
    return sorted(found, key=_newest_first, reverse=True)


def _unsealed(query: Query, batches: Sequence[Batch], sealed: Sequence[int]) -> list[Found]:
    found = []
    for batch, mark in zip(batches, sealed, strict=True):
        try:
            events = batch.decoded() if batch.last > mark else []
        except (DecodeError, ValueError):
            log.error("a batch in the outbox cannot be read", extra={"source": batch.source})
            continue
        for sequence, event in enumerate(events, batch.first):
            if sequence > mark and query.matches(event):
                found.append(Found(ended_us(event), event.id, event, 0))
    return found


def _named(method: str, wanted: str) -> bool:
    if wanted.endswith("*"):
        return method.startswith(wanted[:-1])
    return method == wanted


async def _answer(result: Any) -> Any:
    """redis-py types its commands as both plain and awaitable."""
    return await result
