"""A segment's Parquet file: one row an event, readable by any tool.

Columns: the CloudEvents attributes (https://cloudevents.io, version 1.0), the event's own fields,
and what the proof needs: ``event``, the CallEvent's bytes; ``digest``, their SHA-256; ``removal``,
set where a row's contents were removed when their time was over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError

from penstock.api.audit.v1.audit_pb2 import AuditDecision
from penstock.api.types.v1.metadata_pb2 import ApiFamily, ServiceTier, UsageUnit
from penstock.internal.ledger.v1.events_pb2 import CallEvent

SPEC_VERSION = "1.0"
EVENT_TYPE = "dev.penstock.call"
_CODES: Mapping[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


class SegmentBroken(Exception):
    """The file is not the segment that its link is for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event in a segment."""

    source: str
    sequence: int
    digest: bytes
    """SHA-256 of the event's bytes."""
    event: CallEvent | None
    """None where the contents were removed."""
    removal: bytes | None = None
    """The HMAC that proves a removal (penstock.service.ledger.links)."""


def row_of(source: str, sequence: int, event: CallEvent) -> Row:
    """The row of an event."""
    return Row(source, sequence, hashlib.sha256(event_bytes(event)).digest(), event)


def event_bytes(event: CallEvent) -> bytes:
    """The bytes that the digest covers."""
    return event.SerializeToString(deterministic=True)


def ended_at(event: CallEvent) -> float:
    """When the call ended, in Unix seconds."""
    return (event.started_us + event.duration_us) / 1e6


def code_name(number: int) -> str:
    """The name of a gRPC code."""
    return _CODES.get(number, str(number))


def encode(rows: Sequence[Row]) -> bytes:
    """The Parquet file of the rows."""
    out = BytesIO()
    pq.write_table(_table(rows), out, compression="zstd")
    return out.getvalue()


def decode(data: bytes) -> list[Row]:
    """The rows of a file. Raises SegmentBroken unless every column says what its event says."""
    table = read_table(data)
    names = ("source", "sequence", "digest", "event", "removal")
    columns = [table.column(name).to_pylist() for name in names]
    try:
        rows = [
            Row(source, sequence, digest, _event(event), removal)
            for source, sequence, digest, event, removal in zip(*columns, strict=True)
        ]
        if not _table(rows).equals(table):
            raise SegmentBroken("a column says something else than its event")
    except (DecodeError, pa.ArrowException, TypeError):
        raise SegmentBroken("an event cannot be decoded") from None
    return rows


def read_table(data: bytes) -> Any:
    """The file as a pyarrow.Table of the columns above. Raises SegmentBroken."""
    try:
        table = pq.read_table(BytesIO(data))
    except (pa.ArrowException, OSError, ValueError):
        raise SegmentBroken("the file is not Parquet") from None
    if not table.schema.equals(SCHEMA):
        raise SegmentBroken("the file has other columns")
    return table


def events_in(data: bytes) -> list[CallEvent]:
    """The events of a file whose contents are still there, unchecked. Raises SegmentBroken."""
    try:
        column = pq.read_table(BytesIO(data), columns=["event"]).column("event").to_pylist()
        return [CallEvent.FromString(event) for event in column if event is not None]
    except (pa.ArrowException, DecodeError, KeyError, OSError, ValueError):
        raise SegmentBroken("the file is not a segment") from None


def _event(data: bytes | None) -> CallEvent | None:
    return None if data is None else CallEvent.FromString(data)


_USAGE = pa.list_(
    pa.struct(
        [("unit", pa.string()), ("input_units", pa.int64()), ("output_units", pa.int64())],
    )
)
_TIME = pa.timestamp("us", tz="UTC")

_FIELDS: Mapping[str, tuple[Any, Callable[[CallEvent], Any]]] = {
    "id": (pa.string(), lambda e: e.id),
    "type": (pa.string(), lambda e: EVENT_TYPE),
    "time": (_TIME, lambda e: e.started_us + e.duration_us),
    "subject": (pa.string(), lambda e: e.tenant),
    "specversion": (pa.string(), lambda e: SPEC_VERSION),
    "started": (_TIME, lambda e: e.started_us),
    "duration_us": (pa.int64(), lambda e: e.duration_us),
    "request_id": (pa.string(), lambda e: e.request_id),
    "tenant": (pa.string(), lambda e: e.tenant),
    "key_id": (pa.string(), lambda e: e.key_id),
    "end_user": (pa.string(), lambda e: e.subject),
    "method": (pa.string(), lambda e: e.method),
    "family": (pa.string(), lambda e: word(ApiFamily, e.family)),
    "model": (pa.string(), lambda e: e.model),
    "model_version": (pa.string(), lambda e: e.model_version),
    "resource_id": (pa.string(), lambda e: e.resource_id),
    "tier": (pa.string(), lambda e: word(ServiceTier, e.tier)),
    "region": (pa.string(), lambda e: e.region),
    "replica": (pa.string(), lambda e: e.replica),
    "decision": (pa.string(), lambda e: word(AuditDecision, e.decision)),
    "code": (pa.string(), lambda e: code_name(e.code)),
    "reason": (pa.string(), lambda e: e.reason),
    "usage": (_USAGE, lambda e: [_consumed(usage) for usage in e.usage]),
    "cost_micros": (pa.int64(), lambda e: e.cost_micros),
    "input_digest": (pa.binary(), lambda e: e.input_digest),
    "output_digest": (pa.binary(), lambda e: e.output_digest),
    "payload_kept": (pa.bool_(), lambda e: e.payload_kept),
    "event": (pa.binary(), event_bytes),
}
SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        *(pa.field(name, kind) for name, (kind, _) in _FIELDS.items()),
        pa.field("digest", pa.binary(), nullable=False),
        pa.field("removal", pa.binary()),
    ]
)


def word(enum: Any, number: int) -> str:
    """An enum value in a lower-case word, such as ``token`` for USAGE_UNIT_TOKEN."""
    try:
        name: str = enum.Name(number)
    except ValueError:
        return str(number)
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    return name.removeprefix(prefix).lower()


def _consumed(usage: Any) -> dict[str, Any]:
    return {
        "unit": word(UsageUnit, usage.unit),
        "input_units": usage.input_units,
        "output_units": usage.output_units,
    }


def _table(rows: Sequence[Row]) -> Any:
    events = [row.event for row in rows]
    columns = {
        "source": [row.source for row in rows],
        "sequence": [row.sequence for row in rows],
        "digest": [row.digest for row in rows],
        "removal": [row.removal for row in rows],
    }
    for name, (_, read) in _FIELDS.items():
        columns[name] = [None if event is None else read(event) for event in events]
    return pa.table(
        {name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names}, SCHEMA
    )
