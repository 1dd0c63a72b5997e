"""The outbox: batches of events that gateways have shipped and the scheduler has yet to seal.

One entry of the stream is one batch of one source: ``source``, ``first`` and ``last`` (sequences)
and ``events``, the CallEvents one after the other, each behind its length as a varint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO

from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from penstock.internal.ledger.v1.events_pb2 import CallEvent


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive events of one source."""

    source: str
    first: int
    last: int
    events: bytes

    def decoded(self) -> list[CallEvent]:
        """The events, in order."""
        return decode_events(self.events)


def encode_events(events: Iterable[CallEvent]) -> bytes:
    """The events one after the other, each behind its length."""
    out = BytesIO()
    for event in events:
        serialize_length_prefixed(event, out)
    return out.getvalue()


def decode_events(data: bytes) -> list[CallEvent]:
    """The events of ``encode_events``; raises google.protobuf.message.DecodeError."""
    stream, events = BytesIO(data), []
    while (event := parse_length_prefixed(CallEvent, stream)) is not None:
        events.append(event)
    return events


def batch_of(fields: Mapping[bytes, bytes]) -> Batch:
    """A batch from the fields of a stream entry."""
    return Batch(
        fields[b"source"].decode(), int(fields[b"first"]), int(fields[b"last"]), fields[b"events"]
    )
