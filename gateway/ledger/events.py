"""From a call to its event: each call has one entry, and each entry becomes one event.

What is billed is what was delivered: an answer that was made and did not leave costs nothing, and a
stream costs what its messages said up to the last one that was handed over.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping

import grpc

from gateway.calls import Call
from gateway.families import family_of
from gateway.ledger.digests import Digest, digest
from gateway.ledger.journal import ENDED_TAG, Journal
from gateway.payloads import Collected, PayloadKeeper
from penstock.api.audit.v1 import audit_pb2
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import DependencyUnavailable, PenstockError
from penstock.internal.ledger.v1.events_pb2 import (
    BudgetSpend,
    CallEvent,
    StreamProgress,
    WriteAheadRecord,
)
from penstock.service.prices import PriceTable

log = logging.getLogger(__name__)

MOST_UNWRITTEN = 1000
"""Events kept in memory while the disk takes none; older ones are lost."""
_CODES: Mapping[grpc.StatusCode, int] = {code: code.value[0] for code in grpc.StatusCode}
_ALLOWED, _REFUSED = audit_pb2.AUDIT_DECISION_ALLOWED, audit_pb2.AUDIT_DECISION_REFUSED


class EventWriter:
    """Writes entries to the journal."""

    def __init__(
        self, journal: Journal, prices: PriceTable, payloads: PayloadKeeper | None = None
    ) -> None:
        self.journal = journal
        self.prices = prices
        self.payloads = payloads
        self._opened_in: dict[str, int] = {}
        self._unwritten: deque[bytes] = deque(maxlen=MOST_UNWRITTEN)

    def entry(self, method: str, request_id: str, started: float) -> Entry:
        """For a call that has just arrived; ``started`` is of ``time.monotonic()``."""
        return Entry(self, method, request_id, started)

    def oldest_needed(self) -> int:
        """The first file with a record of a stream that is still open."""
        return min(self._opened_in.values(), default=self.journal.number)

    def write_unwritten(self) -> None:
        """Writes what the disk did not take before, as far as it takes it now."""
        while self._unwritten:
            try:
                self.journal.append(self._unwritten[0])
            except DependencyUnavailable:
                return
            self._unwritten.popleft()

    def write_opened(self, event: CallEvent) -> None:
        """Raises DependencyUnavailable."""
        self.journal.append(WriteAheadRecord(opened=event).SerializeToString())
        self._opened_in[event.id] = self.journal.number

    def write_progress(self, progress: StreamProgress) -> None:
        """Raises DependencyUnavailable."""
        self.journal.append(WriteAheadRecord(progress=progress).SerializeToString())

    def write_ended(self, event: CallEvent, *, keep: bool) -> None:
        """Raises DependencyUnavailable, unless it may be kept for later."""
        # WriteAheadRecord(ended=event), written out: it would copy the event first.
        encoded = event.SerializeToString()
        record = ENDED_TAG + _varint(len(encoded)) + encoded
        try:
            self.journal.append(record)
        except DependencyUnavailable:
            if not keep:
                raise
            if len(self._unwritten) == MOST_UNWRITTEN:
                log.error("an event is lost: the disk takes none, and too many wait")
            self._unwritten.append(record)
        self._opened_in.pop(event.id, None)


class Entry:
    """One call on its way into the ledger; it ends by ``answered``, ``ended`` or ``failed``."""

    __slots__ = (
        "_billed",
        "_input",
        "_kept",
        "_output",
        "_request",
        "_units",
        "_writer",
        "call",
        "method",
        "request_id",
        "started",
    )

    def __init__(self, writer: EventWriter, method: str, request_id: str, started: float) -> None:
        self.call: Call | None = None
        """Set as soon as the caller is known."""
        self._writer = writer
        self.method = method
        self.request_id = request_id
        self.started = started
        self._request: bytes | None = None
        self._kept: Collected | None = None
        self._input: Digest | None = None
        self._output: Digest | None = None
        self._billed: metadata_pb2.Usage | None = None
        self._units: tuple[int, int] | None = None

    def made_by(self, call: Call) -> None:
        """The caller is known."""
        self.call = call
        if call.principal.audit_payloads and self._writer.payloads is not None:
            self._kept = self._writer.payloads.collect(call.principal)

    def received(self, request: bytes) -> None:
        """The whole request of a call that has one."""
        self._request = request
        if self._kept is not None:
            self._kept.received(request)

    def received_message(self, message: bytes) -> None:
        """The next message of a request stream."""
        self._input = self._added(self._input, message)
        if self._kept is not None:
            self._kept.received(message)

    def delivering(self, message: bytes) -> None:
        """The next message of an answer stream is about to leave.

        What it bills is written before it leaves. Raises DependencyUnavailable: it must not leave.
        """
        call = self.call
        usage = None if call is None else call.usage
        if call is not None and usage is not None:
            units = (usage.input_units, usage.output_units)
            if units != self._units and units != (0, 0):
                self._bill(call, metadata_pb2.Usage.FromString(usage.SerializeToString()))
                self._units = units
        self._output = self._added(self._output, message)
        if self._kept is not None:
            self._kept.answered(message)

    def answered(self, answer: bytes) -> None:
        """A call with one answer, which leaves next. Raises DependencyUnavailable: it must not."""
        call = self.call
        event = self._event(call, None if call is None else call.usage)
        if call is not None and (key := call.principal.pseudonym_key):
            event.output_digest = digest(key, answer)
        if self._kept is not None:
            self._kept.answered(answer)
        self._keep_payload(event)
        self._writer.write_ended(event, keep=not event.usage)

    def ended(self) -> None:
        """A stream whose last message was taken."""
        self._end("", grpc.StatusCode.OK)

    def failed(self, error: PenstockError) -> None:
        """A call that was refused, broke or was left; a stream is billed for what was delivered."""
        self._end(error.reason, error.code)

    def _end(self, reason: str, code: grpc.StatusCode) -> None:
        if self.call is not None:
            self.call.usage = self._billed
        event = self._event(self.call, self._billed)
        event.code, event.reason = _CODES[code], reason
        if self._output is not None:
            event.output_digest = self._output.digest()
        self._keep_payload(event)
        self._writer.write_ended(event, keep=True)

    def _keep_payload(self, event: CallEvent) -> None:
        keeper, kept = self._writer.payloads, self._kept
        if keeper is not None and kept is not None:
            event.payload_kept = keeper.offer(event, kept)
            self._kept = None

    def _bill(self, call: Call, usage: metadata_pb2.Usage) -> None:
        if self._billed is None:
            self._writer.write_opened(self._event(call, usage))
        else:
            cost = self._cost(call, usage)
            self._writer.write_progress(
                StreamProgress(
                    event_id="evt_" + self.request_id,
                    usage=[usage],
                    cost_micros=cost,
                    spends=_spends(call),
                )
            )
        self._billed = usage

    def _event(self, call: Call | None, usage: metadata_pb2.Usage | None) -> CallEvent:
        seconds = time.monotonic() - self.started
        event = CallEvent(
            id="evt_" + self.request_id,
            started_us=int((time.time() - seconds) * 1e6),
            duration_us=int(seconds * 1e6),
            request_id=self.request_id,
            method=self.method,
            decision=_ALLOWED if call is not None and call.admitted else _REFUSED,
            family=family_of(self.method),
        )
        if call is None:
            return event
        principal = call.principal
        event.tenant, event.key_id = principal.tenant, principal.key_id
        for name in _OF_CALL:
            if value := getattr(call, name):
                setattr(event, name, value)
        if usage is not None and (usage.input_units or usage.output_units):
            event.usage.append(usage)
            event.cost_micros = self._cost(call, usage)
            event.spends.extend(_spends(call))
        if self._request is not None and principal.pseudonym_key:
            event.input_digest = digest(principal.pseudonym_key, self._request)
        elif self._input is not None:
            event.input_digest = self._input.digest()
        return event

    def _cost(self, call: Call, usage: metadata_pb2.Usage) -> int:
        prices = self._writer.prices
        return prices.cost_micros(family_of(self.method), call.model, call.tier, usage)

    def _added(self, so_far: Digest | None, message: bytes) -> Digest | None:
        if so_far is None:
            if self.call is None or not self.call.principal.pseudonym_key:
                return None
            so_far = Digest(self.call.principal.pseudonym_key)
        so_far.update(message)
        return so_far


_OF_CALL = ("model", "model_version", "replica", "region", "tier", "resource_id", "subject")


def _spends(call: Call) -> list[BudgetSpend]:
    spends = call.ticket.spends(call)
    return [BudgetSpend(budget=budget, amount=amount) for budget, amount in spends if amount]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
