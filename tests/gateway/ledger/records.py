"""Events and journals that the ledger's tests write."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

from gateway.ledger.journal import Journal, Rotation
from gateway.ledger.reading import JournalReader, Record
from gateway.ledger.sources import Source
from penstock.api.types.v1 import metadata_pb2 as types
from penstock.internal.ledger.v1.events_pb2 import (
    BudgetSpend,
    CallEvent,
    StreamProgress,
    WriteAheadRecord,
)

KEY = b"the key of the tests' journals.."
NOON_US = 1_764_072_000_000_000
"""2025-11-25 12:00 UTC."""


def event(
    number: int = 0, *, tenant: str = "acme", tokens: int = 10, budget: str = "", days: int = 0
) -> CallEvent:
    """A billed call of so many tokens, one millionth each."""
    made = CallEvent(
        id="evt_" + (f"{number:032x}" if number else secrets.token_hex(16)),
        started_us=NOON_US + days * 86_400_000_000,
        tenant=tenant,
        key_id="key",
        method="/penstock.api.inference.v1.InferenceService/Generate",
        family=types.API_FAMILY_INFERENCE,
        model="story",
        tier=types.SERVICE_TIER_STANDARD,
    )
    if tokens:
        made.usage.append(used(tokens))
        made.cost_micros = tokens
    if budget:
        made.spends.append(BudgetSpend(budget=budget, amount=tokens))
    return made


def used(tokens: int) -> types.Usage:
    """So many tokens produced."""
    return types.Usage(output_units=tokens, unit=types.USAGE_UNIT_TOKEN)


def ended(event: CallEvent) -> bytes:
    """The record of a call that has ended."""
    return WriteAheadRecord(ended=event).SerializeToString()


def opened(event: CallEvent) -> bytes:
    """The record of a stream that has begun to deliver."""
    return WriteAheadRecord(opened=event).SerializeToString()


def progress(event: CallEvent, tokens: int, budget: str = "") -> bytes:
    """The record of what a stream has delivered so far."""
    told = StreamProgress(event_id=event.id, usage=[used(tokens)], cost_micros=tokens)
    if budget:
        told.spends.append(BudgetSpend(budget=budget, amount=tokens))
    return WriteAheadRecord(progress=told).SerializeToString()


async def written(
    ledger_dir: Path, records: Iterable[bytes], *, each_file: int = 0, synced: bool = True
) -> Source:
    """The files of a source that has ended; a new file after every ``each_file`` records."""
    source = Source.create(ledger_dir)
    rotation = Rotation(max_bytes=1) if each_file else Rotation()
    journal = Journal(source, KEY, rotation)
    for count, record in enumerate(records, 1):
        journal.append(record)
        if each_file and count % each_file == 0:
            await journal.sync()
    if synced:
        await journal.close()
    source.release()
    return source


def read_all(source: Source) -> list[Record]:
    """What a reader finds in a dead source's files. Raises JournalTampered."""
    return list(JournalReader(source, KEY).read(None))
