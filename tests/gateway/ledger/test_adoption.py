"""What a dead gateway leaves is shipped by a living one, and goes once it is sealed."""

from __future__ import annotations

from pathlib import Path

from redis.asyncio import Redis

from gateway.ledger.adoption import Adoption, drop_sealed
from gateway.ledger.journal import Journal, Rotation
from gateway.ledger.sources import Source, sources
from gateway.ledger.store import LedgerStore
from penstock.service import keys
from tests.gateway.ledger.records import KEY, ended, event, opened, progress, written
from tests.gateway.ledger.seen import billed, shipped, totals

BUDGET = keys.budget("tenant:acme", "1", "2025-11-25")


async def seal(control: Redis, source: Source, last: int) -> None:
    await control.hset(keys.LEDGER_SEALED, source.name, str(last))


async def test_a_dead_source_is_shipped_closed_and_gone_when_it_is_sealed(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    stream = event(4, tokens=1)
    records = [ended(event(n, tokens=2, budget=BUDGET)) for n in (1, 2, 3)]
    source = await written(tmp_path, [*records, opened(stream), progress(stream, 9)])
    await control.hset(BUDGET, f"r:{source.name}", "50")
    await control.sadd(keys.budget_holdings(source.name), BUDGET)
    adoption = Adoption(tmp_path, store, KEY)
    await adoption.run_once()
    found = (await shipped(control))[source.name]
    assert len(found) == 4
    assert await totals(control) == billed(found)
    assert await control.hgetall(BUDGET) == {b"spent": b"6"}
    await seal(control, source, 3)
    await adoption.run_once()
    assert sources(tmp_path) == [source.name]
    await seal(control, source, 4)
    await adoption.run_once()
    assert sources(tmp_path) == []
    assert await store.mark(source.name) == 0


async def test_only_one_gateway_adopts_and_another_goes_on_when_it_leaves(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    source = await written(tmp_path, [ended(event(n)) for n in range(1, 6)])
    first, second = Adoption(tmp_path, store, KEY), Adoption(tmp_path, store, KEY)
    await first.run_once()
    await seal(control, source, 5)
    await second.run_once()
    assert sources(tmp_path) == [source.name]
    first.release()
    await second.run_once()
    assert sources(tmp_path) == []
    assert len((await shipped(control))[source.name]) == 5


async def test_a_living_source_is_left_alone(store: LedgerStore, tmp_path: Path) -> None:
    source = Source.create(tmp_path)
    Journal(source, KEY)
    await Adoption(tmp_path, store, KEY).run_once()
    assert source.path(1).exists()
    source.release()


async def test_a_source_without_events_goes_at_once(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    await written(tmp_path, [])
    await Adoption(tmp_path, store, KEY).run_once()
    assert sources(tmp_path) == []
    assert await shipped(control) == {}


async def test_tampered_files_stay_and_do_not_hold_up_others(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    bad = await written(tmp_path, [ended(event(n)) for n in range(1, 6)])
    good = await written(tmp_path, [ended(event(n)) for n in range(11, 16)])
    data = bytearray(bad.path(1).read_bytes())
    data[200] ^= 1
    bad.path(1).write_bytes(data)
    adoption = Adoption(tmp_path, store, KEY)
    for _ in range(2):
        await adoption.run_once()
    assert list(await shipped(control)) == [good.name]
    assert bytes(data) == bad.path(1).read_bytes()
    adoption.release()


async def test_old_files_of_a_living_source_go_once_they_are_sealed(
    control: Redis, store: LedgerStore, tmp_path: Path
) -> None:
    source = Source.create(tmp_path)
    journal = Journal(source, KEY, Rotation(max_bytes=1))
    for number in range(1, 11):
        journal.append(ended(event(number)))
        if number % 2 == 0:
            await journal.sync()

    async def left(sealed: int, oldest_needed: int) -> list[int]:
        await seal(control, source, sealed)
        await drop_sealed(source, store, oldest_needed)
        return [number for number, _ in source.files()]

    assert await left(1, 6) == [1, 2, 3, 4, 5, 6]
    assert await left(5, 2) == [2, 3, 4, 5, 6]
    assert await left(5, 6) == [3, 4, 5, 6]
    assert await left(10, 6) == [6]
    await journal.close()
    source.release()
