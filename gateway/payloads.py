"""Keeps what tenants that ask for it have said and been told, redacted, beside the audit trail.

One object a call, payloads/<tenant>/<day>/<event id>: an AuditEvent with ``id``, ``input`` and
``output`` alone. Written after the answer, from a bounded queue: a call never waits for it, and
what does not fit is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from gateway.calls import Principal
from gateway.redaction import redact
from penstock.api.audit.v1.audit_pb2 import AuditEvent
from penstock.errors import DependencyUnavailable
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service.objects import Objects
from penstock.service.tasks import end_tasks

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Payloads in the queue."""
MOST_WAITING_BYTES = 64 * 1024 * 1024
WRITERS = 4
LONGEST_DRAIN_SECONDS = 5.0
_PIECE = "delta"
"""The field of a stream's messages that holds the next piece of one text."""
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def payload_path(tenant: str, ended_at: float, event_id: str) -> str:
    """Where the payload of an event of that moment (Unix seconds) is."""
    day = time.strftime("%Y-%m-%d", time.gmtime(ended_at))
    return f"payloads/{tenant}/{day}/{event_id}"


class Collected:
    """A call's messages as they were on the wire, up to as many bytes as are kept."""

    __slots__ = ("inputs", "outputs", "room")

    def __init__(self, room: int) -> None:
        self.inputs: list[bytes] = []
        self.outputs: list[bytes] = []
        self.room = room
        """Bytes that may still come; negative once there were too many, and nothing is held."""

    def received(self, message: bytes) -> None:
        """The next message of the caller."""
        self._add(self.inputs, message)

    def answered(self, message: bytes) -> None:
        """The next message of the answer."""
        self._add(self.outputs, message)

    def size(self) -> int:
        """Bytes held."""
        return sum(map(len, self.inputs)) + sum(map(len, self.outputs))

    def _add(self, messages: list[bytes], message: bytes) -> None:
        self.room -= len(message)
        if self.room >= 0:
            messages.append(message)
        else:
            self.inputs, self.outputs = [], []


@dataclass(frozen=True, slots=True)
class _Payload:
    path: str
    event_id: str
    method: str
    messages: Collected
    size: int


class PayloadKeeper:
    """Offers go in at once; ``start`` begins to write them, ``stop`` ends it.

    ``objects`` is None where no address is set: then nothing is kept.
    """

    def __init__(self, objects: Objects | None, region: str, max_bytes: int) -> None:
        self.dropped = 0
        """Payloads that should have been kept and were not."""
        self._objects = objects
        self._region = region
        self._max_bytes = max_bytes
        self._queue: asyncio.Queue[_Payload] = asyncio.Queue(MOST_WAITING)
        self._waiting_bytes = 0
        self._writers: list[asyncio.Task[None]] = []

    def collect(self, principal: Principal) -> Collected | None:
        """What to collect this caller's call in; None when it is not kept, or must not be here."""
        if not principal.audit_payloads or self._objects is None:
            return None
        if principal.regions is not None and self._region not in principal.regions:
            return None
        return Collected(self._max_bytes)

    def offer(self, event: CallEvent, messages: Collected) -> bool:
        """Takes the messages of a call that has ended: what ``event.payload_kept`` says."""
        size = messages.size()
        fits = messages.room >= 0 and self._waiting_bytes + size <= MOST_WAITING_BYTES
        if not fits or self._queue.full() or not _TENANT.fullmatch(event.tenant):
            self._drop(event.id, "too large, or too many wait")
            return False
        path = payload_path(event.tenant, _ended_at(event), event.id)
        self._queue.put_nowait(_Payload(path, event.id, event.method, messages, size))
        self._waiting_bytes += size
        return True

    async def read(self, event: CallEvent) -> AuditEvent | None:
        """An event's payload; None when it is not there. Raises DependencyUnavailable."""
        if self._objects is None:
            return None
        data = await self._objects.get(payload_path(event.tenant, _ended_at(event), event.id))
        return None if data is None else AuditEvent.FromString(data)

    def start(self) -> None:
        """Begins to write."""
        if self._objects is not None:
            work = [self._write_all(self._objects) for _ in range(WRITERS)]
            self._writers = [asyncio.create_task(each) for each in work]

    async def stop(self) -> None:
        """Writes what waits, for some seconds at most."""
        if not self._writers:
            return
        try:
            async with asyncio.timeout(LONGEST_DRAIN_SECONDS):
                await self._queue.join()
        except TimeoutError:
            log.error("payloads are lost", extra={"payloads": self._queue.qsize()})
        await end_tasks(self._writers, LONGEST_DRAIN_SECONDS)

    def measure(self, meter: Meter) -> None:
        """Counts drops."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self.dropped)

        meter.create_observable_counter(
            "penstock.payloads.dropped", [observe], description="Payloads that were not kept."
        )

    async def _write_all(self, objects: Objects) -> None:
        while True:
            payload = await self._queue.get()
            try:
                await objects.put(payload.path, await asyncio.to_thread(_kept, payload))
            except DependencyUnavailable as error:
                self._drop(payload.event_id, str(error))
            except Exception:
                self.dropped += 1
                log.exception("a payload could not be kept")
            finally:
                self._waiting_bytes -= payload.size
                self._queue.task_done()

    def _drop(self, event_id: str, cause: str) -> None:
        self.dropped += 1
        log.warning("a payload is not kept", extra={"event_id": event_id, "cause": cause})


def _ended_at(event: CallEvent) -> float:
    return (event.started_us + event.duration_us) / 1e6


def _kept(payload: _Payload) -> bytes:
    service, _, name = payload.method.lstrip("/").rpartition("/")
    method = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    kept = AuditEvent(id=payload.event_id)
    kept.input = _redacted(GetMessageClass(method.input_type), payload.messages.inputs)
    kept.output = _redacted(GetMessageClass(method.output_type), payload.messages.outputs)
    return kept.SerializeToString()


def _redacted(kind: type[Message], encoded: Sequence[bytes]) -> bytes:
    """The messages, redacted and joined; one that cannot be decoded is left out."""
    messages: list[Message] = []
    for data in encoded:
        try:
            message = kind.FromString(data)
        except DecodeError:
            continue
        # Whatever this version does not know it cannot redact.
        message.DiscardUnknownFields()
        messages.append(message)
    _gather_pieces(messages)
    for message in messages:
        redact(message)
    return b"".join(message.SerializeToString() for message in messages)


def _gather_pieces(messages: Sequence[Message]) -> None:
    """Puts a text that a stream brought in pieces into the first: an address may be cut in two."""
    if len(messages) > 1 and _PIECE in messages[0].DESCRIPTOR.fields_by_name:
        whole = "".join(getattr(message, _PIECE) for message in messages)
        for message in messages:
            message.ClearField(_PIECE)
        setattr(messages[0], _PIECE, whole)
