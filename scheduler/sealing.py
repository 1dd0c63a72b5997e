"""Seals the outbox: one numbered segment of the audit chain at a time, and its twin in usage.

Any number of schedulers may seal at once. Creating the audit segment's link decides what the
segment holds; the usage segment follows from the audit segment's rows; one script then moves the
heads, if they are still the ones that were read. A scheduler that dies in between leaves a link
that the next one verifies and adopts, also when Redis has lost the heads.
"""

from __future__ import annotations

import asyncio
import logging
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.errors import DependencyUnavailable
from penstock.service.ledger.chains import Chain, SegmentMissing, Span
from penstock.service.ledger.heads import Heads, read_heads
from penstock.service.ledger.links import GENESIS, Link, LinkBroken
from penstock.service.ledger.segments import Row, SegmentBroken
from scheduler.outbox import OutboxBroken, OutboxReader
from scheduler.redis_scripts import advance_heads

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How often the outbox is read."""
FAILURE_PAUSE_SECONDS = 2.0


class AdoptionRefused(Exception):
    """The next segment is there and does not continue the chain; somebody has to look at it."""


class Sealer:
    """Writes the segments. ``sealed_events`` counts what this process has sealed."""

    def __init__(
        self, control: Redis, audit: Chain, usage: Chain, *, every_seconds: float, most_events: int
    ) -> None:
        self.sealed_events = 0
        self._redis = control
        self._audit = audit
        self._usage = usage
        self._every_seconds = every_seconds
        self._outbox = OutboxReader(control, most_events)

    async def run(self) -> None:
        """Seals until it is cancelled; failures are logged and tried again."""
        while True:
            try:
                await self._outbox.fill()
                if self._outbox.full or self._outbox.waiting_seconds >= self._every_seconds:
                    await self.seal()
                else:
                    await asyncio.sleep(min(POLL_SECONDS, self._every_seconds))
            except (RedisError, DependencyUnavailable) as error:
                log.warning("sealing waits for a store", extra={"cause": str(error)})
                await self._pause()
            except (AdoptionRefused, LinkBroken, OutboxBroken, SegmentBroken) as error:
                log.critical("sealing has stopped", extra={"cause": str(error)})
                await self._pause()
            except Exception:
                log.exception("sealing failed")
                await self._pause()

    async def seal(self) -> int:
        """Seals what the outbox holds now, up to one segment; the number of events sealed.

        Segments that a dead scheduler left are adopted first, and count. Raises RedisError,
        DependencyUnavailable, and what stops sealing: AdoptionRefused, LinkBroken, OutboxBroken,
        SegmentBroken.
        """
        await self._outbox.fill()
        before = self.sealed_events
        try:
            while await self._step():
                pass
        finally:
            self._outbox.forget()
        return self.sealed_events - before

    async def _step(self) -> bool:
        """Adopts or makes the next segment; whether there may be another to adopt."""
        # Heads before marks: marks that are older than the heads would seal events twice.
        heads = await read_heads(self._redis, self._audit.key)
        left = await self._outbox.unsealed()
        number = heads.audit.segment + 1 if heads.audit else 1
        there = await self._audit.link(number)
        made = None
        if there is None and left.rows:
            last = left.entries[-1].decode()
            span = Span(left.rows, left.sources, time.time(), last)
            made = await self._audit.create(heads.audit, span)
            there = made or await self._audit.link(number)
        if there is None:
            return False
        if made is None:
            await self._check(self._audit, there, heads.audit, number)
        usage = await self._usage_twin(there, heads.usage, left.rows if made else None)
        after = Heads(there, usage, there.sealed_at)
        marks = {source: last for source, (_, last) in there.sources.items()}
        entries = left.entries if made else []
        if not await advance_heads(self._redis, heads, after, entries, marks):
            return False
        self.sealed_events += there.events
        told = {"segment": number, "events": there.events, "adopted": made is None}
        log.info("sealed", extra=told)
        return made is None

    async def _usage_twin(self, audit: Link, previous: Link | None, rows: list[Row] | None) -> Link:
        """The usage segment of the same number: the one that is there, or one from audit's rows."""
        there = await self._usage.link(audit.segment)
        if there is None:
            rows = await self._audit.rows(audit) if rows is None else rows
            if any(row.event is None for row in rows):
                raise SegmentBroken("the usage segment is lost, and so are some of its events")
            used = [row for row in rows if row.event is not None and row.event.usage]
            span = Span(used, audit.sources, audit.sealed_at, audit.last_outbox_id)
            made = await self._usage.create(previous, span)
            if made is not None:
                return made
            there = await self._usage.link(audit.segment)
        if there is None or there.sources != audit.sources:
            raise AdoptionRefused(f"usage segment {audit.segment} is not audit's twin")
        await self._check(self._usage, there, previous, audit.segment)
        return there

    @staticmethod
    async def _check(chain: Chain, link: Link, previous: Link | None, number: int) -> None:
        before = previous.hash if previous else GENESIS
        place = (link.ledger, link.segment, link.previous)
        if place != (chain.ledger, number, before):
            raise AdoptionRefused(f"{chain.ledger} segment {number} does not continue the chain")
        try:
            await chain.data(link)
        except SegmentMissing:
            raise AdoptionRefused(f"the file of {chain.ledger} segment {number} is gone") from None

    async def _pause(self) -> None:
        self._outbox.forget()
        await asyncio.sleep(FAILURE_PAUSE_SECONDS)
