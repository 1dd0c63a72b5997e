"""Reads the outbox in order and remembers what it has read until that is sealed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.ledger.outbox import batch_of
from penstock.service.ledger.segments import Row, row_of

log = logging.getLogger(__name__)

ENTRIES_A_READ = 200


class OutboxBroken(Exception):
    """An entry of the outbox is not a batch of events; sealing stops until somebody looks at it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch, decoded."""

    id: bytes
    source: str
    first: int
    last: int
    rows: list[Row]


@dataclass(slots=True)
class Unsealed:
    """What of the entries that were read is not in a segment yet."""

    rows: list[Row] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    """The ids of the entries that the rows come from."""
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)


class OutboxReader:
    """The beginning of the outbox, up to ``most_events``. Its methods raise RedisError."""

    def __init__(self, control: Redis, most_events: int) -> None:
        self._redis = control
        self._most_events = most_events
        self._entries: list[Entry] = []
        self._since = 0.0

    @property
    def events(self) -> int:
        """Events read so far."""
        return sum(len(entry.rows) for entry in self._entries)

    @property
    def full(self) -> bool:
        """Whether there is enough for a segment."""
        return self.events >= self._most_events

    @property
    def waiting_seconds(self) -> float:
        """How long ago the first of the entries was read; 0 without one."""
        return time.monotonic() - self._since if self._entries else 0.0

    async def fill(self) -> None:
        """Reads on. Raises OutboxBroken."""
        while not self.full:
            start = b"(" + self._entries[-1].id if self._entries else b"-"
            found = await _answer(
                self._redis.xrange(keys.LEDGER_OUTBOX, start, b"+", count=ENTRIES_A_READ)
            )
            if not found:
                return
            if not self._entries:
                self._since = time.monotonic()
            self._entries += await asyncio.to_thread(_entries, found)

    async def unsealed(self) -> Unsealed:
        """What is left of the entries after the sealed marks as they are now.

        Entries that are sealed already, by a scheduler that died in between, are deleted.
        """
        marks = await self._marks()
        left, stale = Unsealed(), []
        for entry in self._entries:
            mark = marks.get(entry.source, 0)
            fresh = [row for row in entry.rows if row.sequence > mark]
            if not fresh:
                stale.append(entry.id)
                continue
            if fresh[0].sequence != mark + 1:
                log.error("events are missing", extra={"source": entry.source, "after": mark})
            left.rows += fresh
            left.entries.append(entry.id)
            first = left.sources.get(entry.source, (fresh[0].sequence, 0))[0]
            left.sources[entry.source] = (first, entry.last)
            marks[entry.source] = entry.last
        if stale:
            await _answer(self._redis.xdel(keys.LEDGER_OUTBOX, *stale))
        return left

    def forget(self) -> None:
        """Starts again from the beginning of the outbox."""
        self._entries = []

    async def _marks(self) -> dict[str, int]:
        sources = sorted({entry.source for entry in self._entries})
        if not sources:
            return {}
        found = await _answer(self._redis.hmget(keys.LEDGER_SEALED, sources))
        return {s: int(mark) for s, mark in zip(sources, found, strict=True) if mark is not None}


def _entries(found: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
    return [_entry(name, fields) for name, fields in found]


def _entry(name: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    try:
        batch = batch_of(fields)
        events = batch.decoded()
    except (KeyError, ValueError, DecodeError) as error:
        raise OutboxBroken(f"entry {name.decode()} cannot be read") from error
    sequences = range(batch.first, batch.last + 1)
    if len(events) != len(sequences):
        raise OutboxBroken(f"entry {name.decode()} holds {len(events)} events")
    rows = [
        row_of(batch.source, sequence, event)
        for sequence, event in zip(sequences, events, strict=True)
    ]
    return Entry(name, batch.source, batch.first, batch.last, rows)


async def _answer(result: Any) -> Any:
    """redis-py types its commands as both plain and awaitable."""
    return await result
