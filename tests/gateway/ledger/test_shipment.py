"""Shipping: every event arrives once and in order, whatever is repeated, killed or forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Away

from gateway.ledger.journal import Journal
from gateway.ledger.reading import JournalTampered
from gateway.ledger.shipment import GATEWAY_LOST, MOST_EVENTS, MarkMisplaced, Shipment
from gateway.ledger.sources import Source
from gateway.ledger.store import LedgerStore, Taken
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service import keys
from tests.gateway.ledger.records import KEY, ended, event, opened, progress, written
from tests.gateway.ledger.seen import billed, shipped, totals

BUDGET = keys.budget("tenant:acme", "1", "2025-11-25")


class LossyStore(LedgerStore):
    """Loses the answer to every other batch, and the batch itself to every fourth."""

    def __init__(self, control: Redis) -> None:
        super().__init__(control)
        self.asked = 0

    async def ship(self, source: str, events: list[CallEvent]) -> Taken:  # type: ignore[override]
        self.asked += 1
        if self.asked % 4 == 0:
            raise Away("not sent")
        taken = await super().ship(source, events)
        if self.asked % 2 == 0:
            raise Away("the answer was lost")
        return taken


def dead(store: LedgerStore, source: Source) -> Shipment:
    return Shipment(store, source, KEY, dead=True)


async def test_lost_answers_and_lost_batches_change_nothing(control: Redis, tmp_path: Path) -> None:
    events = [event(n, tokens=n) for n in range(1, 5 * MOST_EVENTS)]
    source = await written(tmp_path, map(ended, events), each_file=100)
    shipment = dead(LossyStore(control), source)
    for _ in range(20):
        try:
            await shipment.ship(None)
            break
        except Away:
            continue
    found = (await shipped(control))[source.name]
    assert [e.id for e in found] == [e.id for e in events]
    assert await totals(control) == billed(events)


async def test_another_gateway_goes_on_behind_the_mark(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    events = [event(n) for n in range(1, 3 * MOST_EVENTS)]
    source = await written(tmp_path, map(ended, events))
    lossy = LossyStore(control)
    with pytest.raises(Away):
        await dead(lossy, source).ship(None)
    await dead(store, source).ship(None)
    await dead(store, source).ship(None)
    assert len((await shipped(control))[source.name]) == len(events)


async def test_a_redis_that_lost_its_last_writes_gets_them_again(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    source = Source.create(tmp_path)
    journal = Journal(source, KEY)
    shipment = Shipment(store, source, KEY, dead=False)
    for number in range(1, 51):
        journal.append(ended(event(number)))
        if number % 10 == 0:
            await journal.sync()
            await shipment.ship(journal.durable)
        if number == 30:
            await control.flushdb()
    await journal.close()
    found = (await shipped(control))[source.name]
    assert len(found) == 50
    assert await totals(control) == billed(found)


async def test_a_stream_of_a_dead_gateway_is_billed_by_its_last_progress(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    first, second, third = event(1, tokens=1), event(2, tokens=1), event(3, tokens=1)
    records = [
        *(opened(first), opened(second), ended(event(9, tokens=100)), opened(third)),
        *(progress(first, 2), progress(second, 5, BUDGET), progress(first, 3)),
        *(ended(event(1, tokens=3)), progress(second, 6, BUDGET)),
    ]
    source = await written(tmp_path, records, synced=False)
    for _ in range(2):
        await dead(store, source).ship(None)
    found = (await shipped(control))[source.name]
    assert [(e.id[-1], e.usage[0].output_units, e.reason) for e in found] == [
        ("9", 100, ""),
        ("1", 3, ""),
        ("2", 6, GATEWAY_LOST),
        ("3", 1, GATEWAY_LOST),
    ]
    assert await totals(control) == billed(found)
    assert await control.hget(BUDGET, "spent") == b"6"


async def test_a_living_source_keeps_its_open_streams_to_itself(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    source = Source.create(tmp_path)
    journal = Journal(source, KEY)
    journal.append(opened(event(1)))
    journal.append(ended(event(2)))
    await journal.sync()
    shipment = Shipment(store, source, KEY, dead=False)
    await shipment.ship(journal.durable)
    assert [e.id[-1] for e in (await shipped(control))[source.name]] == ["2"]
    await journal.close()


async def test_files_that_are_behind_redis_are_not_shipped(
    store: LedgerStore, tmp_path: Path
) -> None:
    source = await written(tmp_path, [ended(event(n)) for n in range(1, 11)])
    await dead(store, source).ship(None)
    whole = source.path(1).read_bytes()
    source.path(1).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MarkMisplaced):
        await dead(store, source).ship(None)


async def test_files_that_begin_too_late_are_not_shipped(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    source = await written(tmp_path, [ended(event(n)) for n in range(1, 11)], each_file=5)
    source.path(1).unlink()
    with pytest.raises(MarkMisplaced):
        await dead(store, source).ship(None)
    assert await shipped(control) == {}


async def test_nothing_behind_a_changed_record_is_shipped(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    source = await written(tmp_path, [ended(event(n)) for n in range(1, 301)], each_file=150)
    data = bytearray(source.path(2).read_bytes())
    data[len(data) // 2] ^= 1
    source.path(2).write_bytes(data)
    with pytest.raises(JournalTampered):
        await dead(store, source).ship(None)
    assert len((await shipped(control))[source.name]) <= 256
