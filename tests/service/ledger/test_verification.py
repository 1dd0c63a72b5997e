"""An untouched chain verifies; whatever is changed without the key, and some of what is with it,
is found."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.ledger.chains import Chain, Span
from penstock.service.ledger.heads import Heads, read_heads
from penstock.service.ledger.links import LEDGERS, Link, LinkBroken, decode_link
from penstock.service.ledger.segments import decode, encode, row_of
from penstock.service.ledger.verification import (
    HASH_MISMATCH,
    LINK_MISMATCH,
    MAC_MISMATCH,
    MISSING,
    SEQUENCE_GAP,
    Verification,
    verify,
)
from penstock.service.objects import Objects
from tests.service.ledger.writing import KEY, Ledger, event, ledger_in

SEGMENTS = 6
MUTATIONS = 100


@pytest.fixture
async def sealed(ledger: Ledger) -> Ledger:
    """Six segments of two sources."""
    batches = [[event(8 * n + i, billed=i % 3 > 0) for i in range(8)] for n in range(SEGMENTS // 2)]
    await ledger.seal(*batches)
    await ledger.seal(*batches, source="s2")
    return ledger


async def verified(ledger: Ledger, chain: Chain, heads: Heads | None = None) -> Verification:
    heads = heads or await read_heads(ledger.control, KEY)
    return await verify(chain, heads.of(chain.ledger), {})


async def test_an_untouched_chain_has_no_faults(sealed: Ledger) -> None:
    audit, usage = await verified(sealed, sealed.audit), await verified(sealed, sealed.usage)
    assert (audit.faults, usage.faults) == ([], [])
    assert (audit.segments, audit.events) == (6, 48)
    assert (usage.segments, usage.events) == (6, 30)
    assert audit.next_segment == 0


async def test_a_chain_verifies_page_by_page(sealed: Ledger) -> None:
    head = (await read_heads(sealed.control, KEY)).audit
    first, seen = 1, 0
    while first:
        page = await verify(sealed.audit, head, {}, first, 4)
        assert page.faults == []
        seen += page.segments
        first = page.next_segment
    assert seen == SEGMENTS


async def test_every_one_of_a_hundred_random_mutations_is_found(sealed: Ledger) -> None:
    heads = await read_heads(sealed.control, KEY)
    pristine = sealed.folder.with_name("pristine")
    shutil.copytree(sealed.folder, pristine)
    random_ = random.Random(3)
    for number in range(MUTATIONS):
        mutate = _MUTATIONS[number % len(_MUTATIONS)]
        told = await asyncio.to_thread(mutate, sealed, random_)
        found = [
            *(await verified(sealed, sealed.audit, heads)).faults,
            *(await verified(sealed, sealed.usage, heads)).faults,
        ]
        assert found, f"mutation {number} was not found: {mutate.__name__} {told}"
        await asyncio.to_thread(_restore, pristine, sealed.folder)
    for chain in (sealed.audit, sealed.usage):
        assert (await verified(sealed, chain, heads)).faults == []


def _restore(pristine: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(pristine, folder)


def _any_file(ledger: Ledger, random_: random.Random) -> Path:
    return random_.choice(sorted(path for path in ledger.folder.rglob("*") if path.is_file()))


def _place(random_: random.Random) -> tuple[str, int]:
    return random_.choice(LEDGERS), random_.randint(1, SEGMENTS)


def _flip_a_bit(ledger: Ledger, random_: random.Random) -> str:
    path = _any_file(ledger, random_)
    data = bytearray(path.read_bytes())
    at = random_.randrange(len(data))
    data[at] ^= 1 << random_.randrange(8)
    path.write_bytes(data)
    return f"{path.name} byte {at}"


def _cut_off(ledger: Ledger, random_: random.Random) -> str:
    path = _any_file(ledger, random_)
    data = path.read_bytes()
    path.write_bytes(data[: random_.randrange(len(data))])
    return path.name


def _append(ledger: Ledger, random_: random.Random) -> str:
    path = _any_file(ledger, random_)
    path.write_bytes(path.read_bytes() + random_.randbytes(random_.randint(1, 9)))
    return path.name


def _delete_a_file(ledger: Ledger, random_: random.Random) -> str:
    path = _any_file(ledger, random_)
    path.unlink()
    return path.name


def _delete_the_tail(ledger: Ledger, random_: random.Random) -> str:
    name, segment = _place(random_)
    for number in range(segment, SEGMENTS + 1):
        shutil.rmtree(ledger.folder_of(name, number))
    return f"{name} from {segment}"


def _swap_two_segments(ledger: Ledger, random_: random.Random) -> str:
    name = random_.choice(LEDGERS)
    one, other = random_.sample(range(1, SEGMENTS + 1), 2)
    aside = ledger.folder / "aside"
    ledger.folder_of(name, one).rename(aside)
    ledger.folder_of(name, other).rename(ledger.folder_of(name, one))
    aside.rename(ledger.folder_of(name, other))
    return f"{name} {one} and {other}"


def _take_the_other_chains_segment(ledger: Ledger, random_: random.Random) -> str:
    segment = random_.randint(1, SEGMENTS)
    audit, usage = ledger.folder_of("audit", segment), ledger.folder_of("usage", segment)
    shutil.rmtree(usage)
    shutil.copytree(audit, usage)
    return str(segment)


def _remove_rows_without_the_key(ledger: Ledger, random_: random.Random) -> str:
    """Everything is computed again as it should be, but the mac needs the key."""
    name, segment = _place(random_)
    path, link_path = ledger.file(name, segment), ledger.link_file(name, segment)
    rows = decode(path.read_bytes())
    del rows[random_.randrange(len(rows))]
    data = encode(rows)
    link = decode_link(link_path.read_bytes(), KEY)
    digest = hashlib.sha256(data).hexdigest()
    fields = {"file_sha256": digest, "events": len(rows)}
    path.unlink()
    path.with_name(f"{digest}.parquet").write_bytes(data)
    forged = link.model_copy(update=fields)
    guess = random_.choice([link.mac, forged.signed(b"not the ledger key").mac])
    link_path.write_bytes(forged.model_copy(update={"mac": guess}).encoded())
    return f"{name} {segment}"


def _change_a_field_of_a_link(ledger: Ledger, random_: random.Random) -> str:
    name, segment = _place(random_)
    path = ledger.link_file(name, segment)
    raw = json.loads(path.read_bytes())
    field = random_.choice(sorted(raw))
    raw[field] = {"events": 1, "sources": {}, "tenants": []}.get(field, "0" * 64)
    path.write_text(json.dumps(raw, sort_keys=True, separators=(",", ":")))
    return f"{name} {segment} {field}"


def _put_an_old_link_back(ledger: Ledger, random_: random.Random) -> str:
    name = random_.choice(LEDGERS)
    one, other = random_.sample(range(1, SEGMENTS + 1), 2)
    shutil.copy(ledger.link_file(name, one), ledger.link_file(name, other))
    return f"{name} {one} over {other}"


_MUTATIONS: list[Callable[[Ledger, random.Random], str]] = [
    *(_flip_a_bit, _cut_off, _append, _delete_a_file, _delete_the_tail, _swap_two_segments),
    *(_take_the_other_chains_segment, _remove_rows_without_the_key, _change_a_field_of_a_link),
    _put_an_old_link_back,
]


async def test_each_fault_is_told_by_its_kind(sealed: Ledger) -> None:
    shutil.rmtree(sealed.folder_of("audit", 2))
    sealed.file("audit", 4).write_bytes(b"PAR1")
    _change_a_field_of_a_link(sealed, random.Random(5))
    heads = await read_heads(sealed.control, KEY)
    faults = (await verify(sealed.audit, heads.audit, {6: "00" * 32, 9: "00" * 32})).faults
    found = {(fault.segment, fault.kind) for fault in faults}
    assert {(2, MISSING), (4, HASH_MISMATCH), (6, LINK_MISMATCH), (9, MISSING)} <= found


async def test_a_rewritten_chain_is_found_by_links_that_were_noted(
    sealed: Ledger, tmp_path: Path, redis: Redis
) -> None:
    """Whoever holds the key, the store and Redis can make another chain, but not the same one."""
    noted = (await verified(sealed, sealed.audit)).head
    assert noted is not None
    await redis.flushdb()
    other = ledger_in(tmp_path / "other", redis)
    await other.seal(*[[event(100 + n)] for n in range(SEGMENTS)])
    found = await verified(other, other.audit)
    assert found.faults == []
    again = await verify(other.audit, found.head, {noted.segment: noted.hash})
    assert [fault.kind for fault in again.faults] == [LINK_MISMATCH]


async def test_a_gap_in_a_sources_sequence_is_found_though_all_else_fits(ledger: Ledger) -> None:
    await _make(ledger.audit, [1, 2], [3, 5], [6, 7])
    faults = (await verify(ledger.audit, None, {})).faults
    assert [(fault.segment, fault.kind) for fault in faults] == [(2, SEQUENCE_GAP)]


async def test_a_source_that_does_not_go_on_where_it_stopped_is_found(ledger: Ledger) -> None:
    await _make(ledger.audit, [1, 2], [4, 5])
    faults = (await verify(ledger.audit, None, {})).faults
    assert [(fault.segment, fault.kind) for fault in faults] == [(2, SEQUENCE_GAP)]


async def _make(chain: Chain, *segments: list[int]) -> None:
    """Seals segments of these sequences with the real key."""
    link: Link | None = None
    for sequences in segments:
        rows = [row_of("s1", sequence, event(sequence)) for sequence in sequences]
        span = Span(rows, {"s1": (sequences[0], sequences[-1])}, 1.0, "1-1")
        link = await chain.create(link, span)
        assert link is not None


async def test_a_head_that_was_changed_in_redis_is_refused(sealed: Ledger) -> None:
    head = (await read_heads(sealed.control, KEY)).audit
    assert head is not None
    forged: Any = {"audit": head.model_copy(update={"segment": 5}).encoded()}
    await sealed.control.hset(keys.LEDGER_HEADS, mapping=forged)
    with pytest.raises(LinkBroken):
        await read_heads(sealed.control, KEY)


async def test_another_key_verifies_nothing(sealed: Ledger) -> None:
    stranger = Chain(Objects(sealed.folder.as_uri()), "audit", b"another ledger key")
    faults = (await verify(stranger, None, {})).faults
    assert {fault.kind for fault in faults} == {MAC_MISMATCH}
    assert len(faults) == SEGMENTS
