"""Events as gateways ship them, and a ledger to seal them into."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from penstock.api.audit.v1 import audit_pb2
from penstock.api.types.v1 import metadata_pb2
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service import keys
from penstock.service.ledger.chains import Chain
from penstock.service.ledger.outbox import encode_events
from penstock.service.objects import Objects
from scheduler.sealing import Sealer

KEY = b"the ledger key of the tests"
NOW_US = 1_790_000_000_000_000
"""When the first event began: 2026-09-21."""


def event(number: int, *, tenant: str = "acme", billed: bool = True, at_us: int = 0) -> CallEvent:
    """One call; what it says follows from the number."""
    made = CallEvent(
        id="evt_" + hashlib.sha256(f"{tenant}{number}".encode()).hexdigest()[:32],
        started_us=(at_us or NOW_US) + number * 1000,
        duration_us=500,
        request_id=f"request-{tenant}-{number}",
        tenant=tenant,
        key_id="key1" if number % 2 else "key2",
        subject=f"pseudonym-{number % 3}",
        method="/penstock.api.inference.v1.InferenceService/Classify",
        family=metadata_pb2.API_FAMILY_INFERENCE,
        model="intent" if number % 3 else "fraud",
        model_version="1",
        tier=metadata_pb2.SERVICE_TIER_STANDARD,
        region="local",
        replica="r1",
        decision=audit_pb2.AUDIT_DECISION_ALLOWED,
        input_digest=bytes([number % 256]) * 32,
        output_digest=bytes([number % 251]) * 32,
    )
    if billed:
        made.usage.add(input_units=number + 1, unit=metadata_pb2.USAGE_UNIT_TOKEN)
        made.cost_micros = 7 * (number + 1)
    else:
        made.code, made.reason = 8, "RATE_LIMITED"
        made.decision = audit_pb2.AUDIT_DECISION_REFUSED
    return made


async def ship(control: Redis, source: str, first: int, events: Sequence[CallEvent]) -> int:
    """Puts one batch of a source in the outbox, as gateways do; its last sequence."""
    for sequence, one in enumerate(events, first):
        one.sequence = sequence
    last = first + len(events) - 1
    await put_in_outbox(control, source, first, last, encode_events(events))
    return last


async def put_in_outbox(control: Redis, source: str, first: int, last: int, data: bytes) -> None:
    """Adds an entry as it is."""
    fields: Any = {"source": source, "first": first, "last": last, "events": data}
    await control.xadd(keys.LEDGER_OUTBOX, fields)


@dataclass
class Ledger:
    """Both chains in a folder."""

    folder: Path
    control: Redis
    audit: Chain
    usage: Chain

    def sealer(self, *, every_seconds: float = 0.05, most_events: int = 1000) -> Sealer:
        """A scheduler's sealer; make several for several schedulers."""
        return Sealer(
            self.control,
            self.audit,
            self.usage,
            every_seconds=every_seconds,
            most_events=most_events,
        )

    async def seal(self, *batches: Sequence[CallEvent], source: str = "s1", first: int = 1) -> int:
        """Ships each batch and seals it as a segment of its own; the last sequence."""
        sealer = self.sealer()
        for batch in batches:
            first = await ship(self.control, source, first, batch) + 1
            await sealer.seal()
        return first - 1

    def folder_of(self, ledger: str, segment: int) -> Path:
        """Where a segment's files are."""
        return self.folder / ledger / f"{segment:012d}"

    def file(self, ledger: str, segment: int) -> Path:
        """A segment's Parquet file."""
        (found,) = self.folder_of(ledger, segment).glob("*.parquet")
        return found

    def link_file(self, ledger: str, segment: int) -> Path:
        """A segment's link."""
        return self.folder_of(ledger, segment) / "link.json"


def ledger_in(folder: Path, control: Redis) -> Ledger:
    """A ledger below a folder."""
    objects = Objects(folder.as_uri())
    return Ledger(folder, control, Chain(objects, "audit", KEY), Chain(objects, "usage", KEY))
