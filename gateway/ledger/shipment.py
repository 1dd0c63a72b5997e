"""One source's way from its files to the control Redis, in order, each event once.

What Redis already has of a source is its mark; whoever ships starts behind it and sends what comes
next. If the mark is not where it was expected (an answer was lost, another gateway shipped, Redis
came back without its last writes), shipping starts over from the mark.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc

from gateway.ledger.journal import Position
from gateway.ledger.reading import JournalReader
from gateway.ledger.sources import Source
from gateway.ledger.store import LedgerStore
from penstock.internal.ledger.v1.events_pb2 import CallEvent, StreamProgress, WriteAheadRecord

log = logging.getLogger(__name__)

MOST_EVENTS = 64
"""In a batch: about a millisecond of the event loop (18 us an event)."""
GATEWAY_LOST = "GATEWAY_LOST"
"""Reason of a stream whose gateway died."""
_MOST_REWINDS = 10
_UNAVAILABLE: int = grpc.StatusCode.UNAVAILABLE.value[0]


class MarkMisplaced(Exception):
    """Redis and the files of a source do not fit: either of them has lost something."""


class Shipment:
    """Ships one source; keeps at most one batch in memory."""

    def __init__(self, store: LedgerStore, source: Source, key: bytes, *, dead: bool) -> None:
        self.shipped = 0
        """The mark, as last seen."""
        self._store = store
        self._source = source
        self._key = key
        self._dead = dead
        self.sent = 0
        """How many events this object has brought to Redis."""
        self._knows_mark = False
        self._batch: list[CallEvent] = []
        self._begin()

    async def ship(self, until: Position | None) -> None:
        """Sends everything up to there; None sends all of a dead source, its open streams too.

        Raises RedisError, JournalTampered, MarkMisplaced; the next call goes on.
        """
        rewinds = 0
        while True:
            if not self._knows_mark:
                self.shipped, self._knows_mark = await self._store.mark(self._source.name), True
            if not self._batch:
                self._batch = self._next_batch(until)
            if not self._batch:
                break
            taken, mark = await self._store.ship(self._source.name, self._batch)
            if taken:
                self.sent += len(self._batch)
                self.shipped, self._batch = mark, []
                continue
            rewinds += 1
            if rewinds > _MOST_REWINDS or self._batch[0].sequence > self.shipped + 1:
                first = self._batch[0].sequence
                self._begin()
                raise MarkMisplaced(
                    f"source {self._source.name}: Redis has {mark}, the files begin at {first}"
                )
            log.warning(
                "shipping starts over",
                extra={"source": self._source.name, "mark": mark, "expected": self.shipped},
            )
            self._begin()
        if self._last() < self.shipped:
            had, wanted = self._last(), self.shipped
            self._begin()
            raise MarkMisplaced(
                f"source {self._source.name}: Redis has {wanted}, the files end at {had}"
            )

    def _begin(self) -> None:
        self._knows_mark = False
        self._batch = []
        self._read = 0
        self._reader = JournalReader(self._source, self._key)
        self._streams: dict[str, CallEvent] = {}

    def _last(self) -> int:
        """The last sequence read, or known of files that are gone."""
        return max(self._read, self._reader.ended)

    def _next_batch(self, until: Position | None) -> list[CallEvent]:
        batch: list[CallEvent] = []
        for event in self._events(until):
            self._read = event.sequence
            if event.sequence > self.shipped:
                batch.append(event)
            if len(batch) == MOST_EVENTS:
                break
        return batch

    def _events(self, until: Position | None) -> Iterator[CallEvent]:
        for sequence, payload in self._reader.read(until):
            if not sequence and not self._dead:
                continue
            record = WriteAheadRecord.FromString(payload)
            if not sequence:
                self._note(record)
                continue
            event = record.ended
            event.sequence = sequence
            self._streams.pop(event.id, None)
            yield event
        while self._dead and self._streams:
            lost = self._streams.pop(next(iter(self._streams)))
            lost.sequence = self._last() + 1
            yield lost

    def _note(self, record: WriteAheadRecord) -> None:
        if record.HasField("opened"):
            lost = record.opened
            lost.code, lost.reason = _UNAVAILABLE, GATEWAY_LOST
            self._streams[lost.id] = lost
        elif (stream := self._streams.get(record.progress.event_id)) is not None:
            _advance(stream, record.progress)


def _advance(stream: CallEvent, progress: StreamProgress) -> None:
    del stream.usage[:]
    stream.usage.extend(progress.usage)
    del stream.spends[:]
    stream.spends.extend(progress.spends)
    stream.cost_micros = progress.cost_micros
