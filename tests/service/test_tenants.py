"""Tenants on a real Redis: made once, changed under an etag, erased for good."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from penstock.errors import (
    EtagMismatch,
    IdempotencyConflict,
    InvalidArgument,
    TenantErased,
    TenantExists,
    TenantNotFound,
)
from penstock.service.api_keys import KeyDraft, KeyStore
from penstock.service.idempotency import Once
from penstock.service.quotas import Limits
from penstock.service.tenants import TenantRecord, TenantStore


@pytest.fixture
def store(redis: Redis) -> TenantStore:
    return TenantStore(redis)


def once(digest: str = "d", chosen: str = "first") -> Once:
    return Once("operators", "CreateTenant", chosen, digest)


async def test_a_new_tenant_is_found_active(store: TenantStore) -> None:
    made = await store.create(TenantRecord(id="acme", display_name="Acme", revision=9))
    assert await store.find("acme") == made
    assert (made.state, made.revision, made.highest_tier) == ("active", 1, 2)
    assert await store.find("other") is None


@pytest.mark.parametrize("name", ["", "9lives", "Acme", "-a", "a_b", "a" * 41, "a\n", "ä"])
async def test_a_name_outside_the_rule_is_refused(store: TenantStore, name: str) -> None:
    with pytest.raises(InvalidArgument):
        await store.create(TenantRecord(id=name))
    assert await store.list() == ([], "")


async def test_one_of_many_at_once_makes_the_tenant(store: TenantStore) -> None:
    made = await asyncio.gather(
        *(store.create(TenantRecord(id="acme", weight=n)) for n in range(1, 21)),
        return_exceptions=True,
    )
    winners = [record for record in made if isinstance(record, TenantRecord)]
    assert winners == [await store.find("acme")]
    assert all(isinstance(r, TenantRecord | TenantExists) for r in made)


async def test_many_that_ensure_a_tenant_get_the_same(store: TenantStore) -> None:
    made = await asyncio.gather(*(store.ensure(TenantRecord(id="acme")) for _ in range(20)))
    assert made == [made[0]] * 20


async def test_a_repeated_creation_finds_the_first(store: TenantStore) -> None:
    first = await store.create(TenantRecord(id="acme"), once())
    assert await store.create(TenantRecord(id="acme"), once()) == first
    with pytest.raises(IdempotencyConflict):
        await store.create(TenantRecord(id="acme", weight=2), once("other"))
    with pytest.raises(TenantExists):
        await store.create(TenantRecord(id="acme"), once(chosen="second"))


async def test_every_tenant_has_a_pseudonym_key_of_its_own(store: TenantStore) -> None:
    for name in ("acme", "bolt"):
        await store.create(TenantRecord(id=name))
    one, two = await store.pseudonym("acme"), await store.pseudonym("bolt")
    assert one is not None
    assert two is not None
    assert len(one) == len(two) == 32
    assert one != two


async def test_tenants_come_by_id_in_pages(store: TenantStore) -> None:
    names = [f"t{n:02}" for n in range(11)]
    for name in reversed(names):
        await store.create(TenantRecord(id=name))
    await store.suspend("t03")
    await store.erase("t04", etag="1")
    seen, after = [], ""
    while True:
        page, after = await store.list(after=after, most=3)
        seen.append([record.id for record in page])
        if not after:
            break
    assert [name for page in seen for name in page] == [name for name in names if name != "t04"]
    assert [len(page) for page in seen] == [3, 3, 3, 1]
    suspended, _ = await store.list(states=["suspended"], most=1)
    erased, _ = await store.list(states=["erased"])
    assert [r.id for r in suspended + erased] == ["t03", "t04"]


async def test_a_page_that_ends_with_the_list_says_so(store: TenantStore) -> None:
    for name in ("a", "b"):
        await store.create(TenantRecord(id=name))
    assert (await store.list(most=2))[1] == ""


def limited(record: TenantRecord) -> TenantRecord:
    return record.model_copy(update={"limits": Limits(requests_per_minute=5)})


async def test_a_change_moves_the_etag(store: TenantStore) -> None:
    made = await store.create(TenantRecord(id="acme"))
    changed = await store.update("acme", limited, etag=made.etag)
    assert await store.find("acme") == changed
    assert (changed.limits.requests_per_minute, changed.revision) == (5, 2)
    assert changed.updated_at > made.updated_at
    assert await store.update("acme", limited) == changed
    with pytest.raises(EtagMismatch):
        await store.update("acme", limited, etag=made.etag)


async def test_no_change_of_many_at_once_is_lost(store: TenantStore) -> None:
    await store.create(TenantRecord(id="acme", weight=1))

    def grown(record: TenantRecord) -> TenantRecord:
        return record.model_copy(update={"weight": record.weight + 1})

    await asyncio.gather(*(store.update("acme", grown) for _ in range(20)))
    found = await store.get("acme")
    assert (found.weight, found.revision) == (21, 21)


async def test_a_missing_tenant_cannot_be_changed(store: TenantStore) -> None:
    for change in (store.update("x", limited), store.suspend("x"), store.erase("x", etag="1")):
        with pytest.raises(TenantNotFound):
            await change


@pytest.mark.parametrize("name", ["acme:pseudonym", "acme:keys", "acme\n", "", "x" * 10_000])
async def test_no_other_key_of_redis_passes_for_a_tenant(store: TenantStore, name: str) -> None:
    await store.create(TenantRecord(id="acme"))
    assert await store.find(name) is None
    for attempt in (store.get(name), store.suspend(name), store.erase(name, etag="1")):
        with pytest.raises(TenantNotFound) as caught:
            await attempt
        assert len(caught.value.message) < 100


async def test_a_suspension_ends_when_the_tenant_is_resumed(store: TenantStore) -> None:
    await store.create(TenantRecord(id="acme"))
    assert (await store.suspend("acme")).state == "suspended"
    assert await store.suspend("acme") == await store.find("acme")
    assert (await store.resume("acme")).state == "active"


async def test_an_erased_tenant_keeps_its_id_alone(store: TenantStore, redis: Redis) -> None:
    keys = KeyStore(redis, b"a pepper of some length")
    described = TenantRecord(
        id="acme", display_name="Acme Ltd", labels={"contact": "ada@acme.example"}
    )
    made = await store.create(described)
    other = await store.create(TenantRecord(id="bolt"))
    draft = KeyDraft(
        tenant="acme", name="ada", credential="jwt", identity="https://id ada", scopes=("*",)
    )
    key, _ = await keys.add(draft)
    kept, _ = await keys.create("bolt", "bo", ["*"])
    with pytest.raises(EtagMismatch):
        await store.erase("acme", etag="")
    with pytest.raises(EtagMismatch):
        await store.erase("acme", etag="7")
    erased = await store.erase("acme", etag=made.etag)
    assert erased == await store.erase("acme", etag="whatever")
    assert (erased.state, erased.display_name, erased.labels) == ("erased", "", {})
    assert await store.pseudonym("acme") is None
    found = await keys.get(key.id)
    assert found.state() == "revoked"
    assert (found.name, found.identity) == ("", "")
    assert await keys.find_identity("jwt", "https://id ada") is None
    assert await keys.get(kept.id) == kept
    assert await store.find("bolt") == other
    stored = b"".join([await redis.dump(name) or b"" for name in await redis.keys("*")])
    assert b"ada" not in stored


async def test_erasing_a_tenant_leaves_an_identity_that_another_took_over(
    store: TenantStore, redis: Redis
) -> None:
    keys = KeyStore(redis, b"a pepper of some length")
    workload = "spiffe://example.org/ns/shop/sa/checkout"
    for name in ("acme", "bolt"):
        await store.create(TenantRecord(id=name))
    drafts = [
        KeyDraft(tenant=name, name="x", credential="spiffe", identity=workload, scopes=("*",))
        for name in ("acme", "bolt")
    ]
    first, _ = await keys.add(drafts[0])
    await keys.revoke(first.id)
    second, _ = await keys.add(drafts[1])
    await store.erase("acme", etag="1")
    assert await keys.find_identity("spiffe", workload) == second


async def test_an_erased_tenant_stays_erased(store: TenantStore, redis: Redis) -> None:
    await store.create(TenantRecord(id="acme"))
    await store.erase("acme", etag="1")
    for change in (store.update("acme", limited), store.suspend("acme"), store.resume("acme")):
        with pytest.raises(TenantErased):
            await change
    with pytest.raises(TenantExists):
        await store.create(TenantRecord(id="acme"))
    with pytest.raises(TenantErased):
        await KeyStore(redis, b"a pepper of some length").create("acme", "late", ["*"])


async def test_no_key_made_while_a_tenant_is_erased_outlives_it(
    store: TenantStore, redis: Redis
) -> None:
    keys = KeyStore(redis, b"a pepper of some length")
    for round_ in range(5):
        name = f"t{round_}"
        await store.create(TenantRecord(id=name))
        await asyncio.gather(
            *(keys.create(name, f"{n}", ["*"]) for n in range(10)),
            store.erase(name, etag="1"),
            return_exceptions=True,
        )
        left, _ = await keys.list(tenant=name, states=["active"])
        assert (await store.get(name)).state == "erased"
        assert left == []
