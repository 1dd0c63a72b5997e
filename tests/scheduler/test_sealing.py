"""Sealing: in order, each event once, whoever seals and wherever a sealer dies."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.ledger.chains import Chain
from penstock.service.ledger.heads import read_heads
from penstock.service.ledger.links import Link
from penstock.service.ledger.outbox import encode_events
from penstock.service.ledger.verification import verify
from penstock.service.tasks import end_tasks
from scheduler import sealing
from scheduler.outbox import OutboxBroken
from scheduler.sealing import AdoptionRefused
from tests.service.ledger.writing import KEY, Ledger, event, put_in_outbox, ship


async def ids(chain: Chain, head: Link | None) -> list[str]:
    """Every event of a chain, in its order."""
    found: list[str] = []
    for segment in range(1, (head.segment if head else 0) + 1):
        link = await chain.link(segment)
        assert link is not None
        found += [row.event.id for row in await chain.rows(link) if row.event is not None]
    return found


async def assert_sealed_once(ledger: Ledger, wanted: list[str]) -> None:
    """Both chains verify and hold exactly these events; the outbox holds nothing else."""
    heads = await read_heads(ledger.control, KEY)
    for chain in (ledger.audit, ledger.usage):
        assert (await verify(chain, heads.of(chain.ledger), {})).faults == []
    found = await ids(ledger.audit, heads.audit)
    assert sorted(found) == sorted(wanted)
    assert len(set(found)) == len(found)


async def test_events_are_sealed_in_order_into_both_chains(ledger: Ledger, redis: Redis) -> None:
    events = [event(n, billed=n % 2 == 0) for n in range(10)]
    await ship(redis, "s1", 1, events[:6])
    await ship(redis, "s1", 7, events[6:])
    assert await ledger.sealer().seal() == 10
    heads = await read_heads(redis, KEY)
    assert await ids(ledger.audit, heads.audit) == [one.id for one in events]
    assert await ids(ledger.usage, heads.usage) == [one.id for one in events[::2]]
    assert await redis.xlen(keys.LEDGER_OUTBOX) == 0
    assert await redis.hgetall(keys.LEDGER_SEALED) == {b"s1": b"10"}
    assert heads.audit is not None
    assert heads.sealed_until == heads.audit.sealed_at


async def test_an_empty_outbox_makes_no_segment(ledger: Ledger) -> None:
    assert await ledger.sealer().seal() == 0
    assert await ledger.audit.last_segment() == 0


async def test_batches_that_were_sealed_before_are_dropped(ledger: Ledger, redis: Redis) -> None:
    events = [event(n) for n in range(6)]
    await ledger.seal(events[:4])
    await ship(redis, "s1", 1, events[:4])
    await ship(redis, "s1", 3, events[2:])
    assert await ledger.sealer().seal() == 2
    await assert_sealed_once(ledger, [one.id for one in events])
    assert await redis.xlen(keys.LEDGER_OUTBOX) == 0


async def test_many_sealers_at_once_seal_each_event_once(ledger: Ledger, redis: Redis) -> None:
    sealers = [ledger.sealer(every_seconds=0.01, most_events=7) for _ in range(4)]
    tasks = [asyncio.create_task(sealer.run()) for sealer in sealers]
    events = [event(n, billed=n % 3 > 0) for n in range(60)]
    for start in range(0, 60, 4):
        await ship(redis, f"s{start % 3}", start // 12 * 4 + 1, events[start : start + 4])
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(20):
            while await redis.xlen(keys.LEDGER_OUTBOX):
                await asyncio.sleep(0.02)
    finally:
        assert await end_tasks(tasks, 10)
    await assert_sealed_once(ledger, [one.id for one in events])
    folders = [path for name in ("audit", "usage") for path in (ledger.folder / name).iterdir()]
    # Those who were not first have taken their files away.
    assert {len(list(folder.glob("*.parquet"))) for folder in folders} == {1}


async def test_what_a_dead_sealer_left_before_redis_is_adopted(
    ledger: Ledger, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event(n) for n in range(9)]
    await ship(redis, "s1", 1, events[:5])

    async def dies(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "advance_heads", dies)
        with pytest.raises(KeyboardInterrupt):
            await ledger.sealer().seal()
    assert await ledger.audit.link(1) is not None
    assert (await read_heads(redis, KEY)).audit is None
    await ship(redis, "s1", 6, events[5:])
    assert await ledger.sealer().seal() == 9
    await assert_sealed_once(ledger, [one.id for one in events])
    assert await redis.xlen(keys.LEDGER_OUTBOX) == 0


async def test_a_usage_segment_that_a_dead_sealer_never_wrote_is_made_from_audits(
    ledger: Ledger, redis: Redis
) -> None:
    events = [event(n, billed=n != 2) for n in range(5)]
    await ledger.seal(events)
    await redis.delete(keys.LEDGER_HEADS)
    shutil.rmtree(ledger.folder_of("usage", 1))
    assert await ledger.sealer().seal() == 5
    heads = await read_heads(redis, KEY)
    assert await ids(ledger.usage, heads.usage) == [e.id for e in events if e.usage]


async def test_a_redis_that_lost_everything_gets_its_heads_back_from_the_store(
    ledger: Ledger, redis: Redis
) -> None:
    events = [event(n) for n in range(12)]
    await ledger.seal(events[:3], events[3:6], events[6:9])
    before = await read_heads(redis, KEY)
    await redis.flushdb()
    # Gateways ship again what they cannot know to be sealed.
    await ship(redis, "s1", 7, events[6:])
    assert await ledger.sealer().seal() == 12
    after = await read_heads(redis, KEY)
    assert before.audit is not None
    assert after.audit is not None
    assert after.audit.segment == before.audit.segment + 1
    await assert_sealed_once(ledger, [one.id for one in events])


async def test_a_segment_whose_file_was_changed_is_not_adopted(
    ledger: Ledger, redis: Redis
) -> None:
    await ledger.seal([event(1)])
    await redis.delete(keys.LEDGER_HEADS)
    ledger.file("audit", 1).unlink()
    with pytest.raises(AdoptionRefused):
        await ledger.sealer().seal()


async def test_an_entry_that_is_no_batch_stops_sealing_loudly(ledger: Ledger, redis: Redis) -> None:
    await put_in_outbox(redis, "s1", 1, 2, encode_events([event(1)]))
    with pytest.raises(OutboxBroken):
        await ledger.sealer().seal()


async def test_a_full_segment_does_not_wait_for_its_time(ledger: Ledger, redis: Redis) -> None:
    await ship(redis, "s1", 1, [event(n) for n in range(20)])
    task = asyncio.create_task(ledger.sealer(every_seconds=600, most_events=20).run())
    try:
        async with asyncio.timeout(10):
            while not await redis.hexists(keys.LEDGER_HEADS, "audit"):
                await asyncio.sleep(0.02)
    finally:
        assert await end_tasks([task], 10)
