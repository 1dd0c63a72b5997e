"""What is too old goes, the chain stays."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.ledger.heads import read_heads
from penstock.service.ledger.links import LEDGERS
from penstock.service.ledger.segments import encode
from penstock.service.ledger.verification import MAC_MISMATCH, verify
from penstock.service.objects import Objects
from penstock.service.tenants import Retention, TenantRecord
from scheduler.keys import LEDGER_SWEPT
from scheduler.retention import Defaults, Sweeper
from tests.service.ledger.writing import KEY, Ledger, event

DAY = 86_400.0
NOW = time.time()
NOW_US = int(NOW * 1e6)


def sweeper(ledger: Ledger, days_later: float, payloads: Objects | None = None) -> Sweeper:
    """One with 100 days for usage, 50 for audit and 10 for payloads, at a later time."""
    defaults = Defaults(100 * DAY, 50 * DAY, 10 * DAY)
    chains = (ledger.audit, ledger.usage)
    return Sweeper(ledger.control, chains, payloads, defaults, lambda: NOW + days_later * DAY)


async def tenant(redis: Redis, name: str, *, erased: bool = False, **kept: float) -> None:
    record = TenantRecord(
        id=name,
        state="erased" if erased else "active",
        retention=Retention(**kept),
        created_at=NOW,
        updated_at=NOW,
    )
    await redis.set(keys.tenant(name), record.model_dump_json())
    await redis.sadd(keys.TENANTS, name)


async def tenants_left(ledger: Ledger) -> dict[str, set[str]]:
    """By ledger, whose contents are there, read from the files; both chains must verify."""
    heads = await read_heads(ledger.control, KEY)
    left: dict[str, set[str]] = {}
    for chain in (ledger.audit, ledger.usage):
        head = heads.of(chain.ledger)
        assert head is not None
        assert (await verify(chain, head, {})).faults == []
        rows = []
        for segment in range(1, head.segment + 1):
            link = await chain.link(segment)
            assert link is not None
            rows += await chain.rows(link)
        left[chain.ledger] = {row.event.tenant for row in rows if row.event is not None}
    return left


@pytest.fixture
async def sealed(ledger: Ledger) -> Ledger:
    """Two segments with the calls of two tenants and of nobody."""
    people = ("acme", "umbra", "")
    await ledger.seal(
        [event(n, tenant=people[n % 3], at_us=NOW_US) for n in range(9)],
        [event(n, tenant=people[n % 3], at_us=NOW_US) for n in range(9, 18)],
    )
    return ledger


async def test_nothing_goes_before_its_time(sealed: Ledger) -> None:
    assert await sweeper(sealed, 49).sweep() == 0
    everybody = {"acme", "umbra", ""}
    assert await tenants_left(sealed) == {"audit": everybody, "usage": everybody}


async def test_each_tenant_and_each_ledger_has_its_own_time(sealed: Ledger, redis: Redis) -> None:
    await tenant(redis, "acme", usage_events=5 * DAY)
    await tenant(redis, "umbra", audit_events=500 * DAY)
    assert await sweeper(sealed, 60).sweep() == 4
    assert await tenants_left(sealed) == {"audit": {"umbra"}, "usage": {"umbra", ""}}
    assert await sweeper(sealed, 60).sweep() == 0


async def test_a_removed_row_keeps_nothing_but_its_place_and_digest(sealed: Ledger) -> None:
    link = await sealed.audit.link(1)
    assert link is not None
    before = await sealed.audit.rows(link)
    await sweeper(sealed, 60).sweep()
    data = sealed.file("audit", 1).read_bytes()
    for needle in (b"acme", b"evt_", b"request-", b"pseudonym"):
        assert needle not in data
    link = await sealed.audit.link(1)
    assert link is not None
    after = await sealed.audit.rows(link)
    assert [r.digest for r in after] == [r.digest for r in before]
    assert [r.sequence for r in after] == [r.sequence for r in before]


async def test_a_removal_without_the_key_is_found(sealed: Ledger) -> None:
    """Even by somebody who could make links: a row's removal has a proof of its own."""
    link = await sealed.audit.link(1)
    assert link is not None
    rows = [replace(row, event=None, removal=b"\0" * 32) for row in await sealed.audit.rows(link)]
    data = encode(rows)
    forged = link.model_copy(update={"file_sha256": hashlib.sha256(data).hexdigest()})
    sealed.file("audit", 1).with_name(f"{forged.file_sha256}.parquet").write_bytes(data)
    sealed.link_file("audit", 1).write_bytes(forged.signed(KEY).encoded())
    head = (await read_heads(sealed.control, KEY)).audit
    faults = (await verify(sealed.audit, head, {})).faults
    assert {fault.kind for fault in faults} == {MAC_MISMATCH}
    assert len(faults) == len(rows)


async def test_a_sweep_that_was_broken_off_is_done_by_the_next(
    sealed: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left = Objects.put, 1

    async def dies_later(self: Objects, path: str, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        await put(self, path, data)

    # The new file is there, its link is not.
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", dies_later)
        with pytest.raises(KeyboardInterrupt):
            await sweeper(sealed, 60).sweep()
    assert (await tenants_left(sealed))["audit"] == {"acme", "umbra", ""}
    await sweeper(sealed, 60).sweep()
    assert (await tenants_left(sealed))["audit"] == set()
    for name in LEDGERS:
        assert len(list(sealed.folder_of(name, 1).glob("*.parquet"))) == 1


async def test_swept_segments_are_not_read_again(sealed: Ledger, redis: Redis) -> None:
    await sweeper(sealed, 60).sweep()
    assert await redis.hgetall(LEDGER_SWEPT) == {b"audit": b"2"}
    await sweeper(sealed, 101).sweep()
    assert await redis.hgetall(LEDGER_SWEPT) == {b"audit": b"2", b"usage": b"2"}


async def test_payloads_go_by_the_day(ledger: Ledger, redis: Redis, tmp_path: Path) -> None:
    await tenant(redis, "acme", audit_payloads=2 * DAY)
    payloads = Objects((tmp_path / "kept").as_uri())
    first, later = (time.strftime("%Y-%m-%d", time.gmtime(NOW + days * DAY)) for days in (0, 3))
    for name in ("acme", "umbra"):
        for day in (first, later):
            await payloads.put(f"payloads/{name}/{day}/evt_1", b"x")
    assert await sweeper(ledger, 2, payloads).sweep() == 0
    assert await sweeper(ledger, 3, payloads).sweep() == 1
    assert await payloads.get(f"payloads/acme/{first}/evt_1") is None
    assert await sweeper(ledger, 11, payloads).sweep() == 2
    assert await payloads.names("payloads") == [f"payloads/umbra/{later}/evt_1"]


async def test_the_payloads_of_an_erased_tenant_go_at_once(
    ledger: Ledger, redis: Redis, tmp_path: Path
) -> None:
    payloads = Objects((tmp_path / "kept").as_uri())
    today = time.strftime("%Y-%m-%d", time.gmtime(NOW))
    for name in ("acme", "umbra"):
        await payloads.put(f"payloads/{name}/{today}/evt_1", b"x")
    await tenant(redis, "acme", erased=True)
    assert await sweeper(ledger, 0, payloads).sweep() == 1
    assert await payloads.names("payloads") == [f"payloads/umbra/{today}/evt_1"]
