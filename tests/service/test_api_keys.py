"""Keys on a real Redis: made for a tenant, found, changed, rotated with an overlap, revoked."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from penstock.errors import (
    EtagMismatch,
    IdempotencyConflict,
    IdentityExists,
    InvalidArgument,
    KeyNotFound,
    KeyRevoked,
    TenantNotFound,
)
from penstock.service import keys
from penstock.service.api_keys import MOST_PROOFS, ApiKey, KeyDraft, KeyRecord, KeyStore
from penstock.service.credentials import SIGNING_SECRET_PREFIX, CredentialKind, mac, mint, parse
from penstock.service.idempotency import Once
from penstock.service.quotas import Limits
from penstock.service.tenants import TenantRecord, TenantStore

PEPPER = b"a pepper of some length"
SPIFFE = "spiffe://example.org/ns/shop/sa/checkout"


@pytest.fixture
async def store(redis: Redis) -> KeyStore:
    """With the tenants acme and bolt."""
    for name in ("acme", "bolt"):
        await TenantStore(redis).create(TenantRecord(id=name))
    return KeyStore(redis, PEPPER)


def draft(
    kind: CredentialKind = "api_key", identity: str = "", *, tenant: str = "acme", name: str = "x"
) -> KeyDraft:
    return KeyDraft(tenant=tenant, name=name, credential=kind, identity=identity, scopes=("*",))


def parsed(text: str) -> ApiKey:
    key = parse(text)
    assert key is not None
    return key


async def test_a_stored_key_matches_its_holder_only(store: KeyStore) -> None:
    record, text = await store.create("acme", "first", ["inference:*"])
    key, other = parsed(text), parsed(mint()[0])
    assert await store.find(record.id) == record
    assert store.matches(record, key)
    assert not store.matches(record, other)
    assert not store.matches(record, ApiKey(key.id, other.secret))


async def test_another_pepper_matches_nothing(store: KeyStore, redis: Redis) -> None:
    record, text = await store.create("acme", "first", ["*"])
    assert not KeyStore(redis, b"another pepper").matches(record, parsed(text))


async def test_neither_the_key_nor_its_secret_is_stored(store: KeyStore, redis: Redis) -> None:
    record, text = await store.create("acme", "first", ["*"])
    secret = parsed(text).secret
    stored = await redis.get(keys.api_key(record.id))
    assert isinstance(stored, bytes)
    assert secret.encode() not in stored
    assert mac(PEPPER, secret).encode() in stored


async def test_a_key_for_a_tenant_that_does_not_exist_is_not_made(store: KeyStore) -> None:
    with pytest.raises(TenantNotFound):
        await store.create("nobody", "first", ["*"])
    assert await store.list() == ([], "")


async def test_a_key_for_a_scope_that_does_not_exist_is_not_made(store: KeyStore) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await store.create("acme", "first", ["inference:invoke", "inference:destroy", "x:*"])
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["scopes[1]", "scopes[2]"]
    assert await store.list() == ([], "")


async def test_keys_come_newest_first_in_pages(store: KeyStore) -> None:
    made = [
        (await store.create("bolt" if n % 3 == 0 else "acme", f"key {n}", ["*"]))[0]
        for n in range(8)
    ]
    made.reverse()
    seen: list[KeyRecord] = []
    after = ""
    while True:
        page, after = await store.list(after=after, most=3)
        seen += page
        if not after:
            break
        assert len(page) == 3
    assert seen == made
    first, after = await store.list(tenant="bolt", most=2)
    rest, end = await store.list(tenant="bolt", most=2, after=after)
    assert first + rest == [record for record in made if record.tenant == "bolt"]
    assert end == ""


async def test_keys_are_listed_by_state(store: KeyStore) -> None:
    active, _ = await store.create("acme", "active", ["*"])
    expired, _ = await store.create("acme", "expired", ["*"], expires_at=time.time() - 1)
    revoked, _ = await store.create("acme", "revoked", ["*"])
    revoked = await store.revoke(revoked.id)
    assert await store.list(states=["active"]) == ([active], "")
    assert await store.list(states=["expired"]) == ([expired], "")
    assert await store.list(states=["revoked", "active"]) == ([revoked, active], "")


@pytest.mark.parametrize("kind", ["spiffe", "jwt"])
async def test_an_identity_stands_for_one_key(store: KeyStore, kind: CredentialKind) -> None:
    record, text = await store.add(draft(kind, SPIFFE))
    assert (text, record.proofs) == ("", ())
    assert await store.find_identity(kind, SPIFFE) == record
    assert await store.find_identity("spiffe" if kind == "jwt" else "jwt", SPIFFE) is None
    with pytest.raises(IdentityExists):
        await store.add(draft(kind, SPIFFE, tenant="bolt"))
    revoked = await store.revoke(record.id)
    assert await store.find_identity(kind, SPIFFE) == revoked
    second, _ = await store.add(draft(kind, SPIFFE, tenant="bolt"))
    await store.revoke(record.id)
    assert await store.find_identity(kind, SPIFFE) == second


async def test_one_of_many_at_once_takes_the_identity(store: KeyStore) -> None:
    made = await asyncio.gather(
        *(store.add(draft("spiffe", SPIFFE)) for _ in range(20)), return_exceptions=True
    )
    refused = [error for error in made if isinstance(error, IdentityExists)]
    assert len(refused) == 19
    assert len((await store.list())[0]) == 1


async def test_a_signing_key_keeps_its_public_half(store: KeyStore) -> None:
    record, text = await store.add(draft("ed25519"), public_key="ab" * 32)
    assert text == ""
    assert [proof.value for proof in record.proofs] == ["ab" * 32]
    rotated, _ = await store.rotate(record.id, public_key="cd" * 32)
    assert [proof.value for proof in rotated.proofs] == ["cd" * 32, "ab" * 32]


async def test_a_shared_secret_is_derived_and_never_stored(store: KeyStore, redis: Redis) -> None:
    record, text = await store.add(draft("hmac"))
    key = parse(text, SIGNING_SECRET_PREFIX)
    assert key is not None
    assert parse(text) is None
    assert text.startswith(f"pss_{record.id}_")
    assert store.signing_secrets(record) == (key.secret,)
    stored = await redis.get(keys.api_key(record.id))
    assert isinstance(stored, bytes)
    assert key.secret.encode() not in stored
    assert KeyStore(redis, b"another pepper").signing_secrets(record) != (key.secret,)
    assert not store.matches(record, key)


async def test_both_shared_secrets_are_good_in_the_overlap(store: KeyStore) -> None:
    record, first = await store.add(draft("hmac"))
    rotated, second = await store.rotate(record.id, overlap_seconds=60)
    secrets = store.signing_secrets(rotated)
    assert [f"_{secret}_" in text for secret, text in zip(secrets, (second, first), strict=True)]
    ended, third = await store.rotate(record.id, overlap_seconds=0)
    (only,) = store.signing_secrets(ended)
    assert f"_{only}_" in third


async def test_a_rotated_key_takes_both_secrets_until_the_overlap_ends(store: KeyStore) -> None:
    record, old = await store.create("acme", "first", ["*"])
    rotated, new = await store.rotate(record.id, overlap_seconds=0.2)
    assert (rotated.id, rotated.scopes) == (record.id, record.scopes)
    assert rotated.rotated_at is not None
    assert parsed(new).id == record.id
    assert store.matches(rotated, parsed(old))
    assert store.matches(rotated, parsed(new))
    deadline = time.monotonic() + 5
    while store.matches(rotated, parsed(old)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert store.matches(rotated, parsed(new))


async def test_a_rotation_without_overlap_ends_the_old_secret_at_once(store: KeyStore) -> None:
    record, old = await store.create("acme", "first", ["*"])
    rotated, new = await store.rotate(record.id, overlap_seconds=0)
    assert not store.matches(rotated, parsed(old))
    assert store.matches(rotated, parsed(new))


async def test_a_second_rotation_lengthens_no_old_secrets_life(store: KeyStore) -> None:
    record, _ = await store.create("acme", "first", ["*"])
    once, _ = await store.rotate(record.id, overlap_seconds=10)
    twice, _ = await store.rotate(record.id, overlap_seconds=1000)
    assert twice.proofs[2] == once.proofs[1]
    for _ in range(MOST_PROOFS):
        twice, _ = await store.rotate(record.id, overlap_seconds=1000)
    assert len(twice.proofs) == MOST_PROOFS


async def test_a_credential_without_a_secret_cannot_be_rotated(store: KeyStore) -> None:
    record, _ = await store.add(draft("spiffe", SPIFFE))
    with pytest.raises(InvalidArgument) as caught:
        await store.rotate(record.id)
    assert caught.value.violations[0].field == "key_id"


async def test_a_repeated_creation_gives_the_key_without_its_text(
    store: KeyStore, redis: Redis
) -> None:
    once = Once("operators", "CreateKey", "mine", "digest")
    record, text = await store.add(draft(), once=once)
    assert text
    assert await store.add(draft(), once=once) == (record, "")
    with pytest.raises(IdempotencyConflict):
        await store.add(draft(name="y"), once=Once("operators", "CreateKey", "mine", "other"))
    elsewhere, _ = await store.add(draft(), once=Once("bolt", "CreateKey", "mine", "digest"))
    assert elsewhere.id != record.id
    assert 86_000 < await redis.ttl(once.key) <= 86_400


async def test_many_repeats_at_once_make_one_key(store: KeyStore) -> None:
    once = Once("operators", "CreateKey", "mine", "digest")
    made = await asyncio.gather(*(store.add(draft(), once=once) for _ in range(20)))
    assert len({record.id for record, _ in made}) == 1
    assert len([text for _, text in made if text]) == 1


async def test_a_repeated_rotation_happens_once(store: KeyStore) -> None:
    record, _ = await store.create("acme", "first", ["*"])
    once = Once("operators", "RotateKey", "mine", "digest")
    rotated, text = await store.rotate(record.id, once=once)
    assert text
    assert await store.rotate(record.id, once=once) == (rotated, "")
    with pytest.raises(IdempotencyConflict):
        await store.rotate(record.id, once=Once("operators", "RotateKey", "mine", "other"))


def limited(record: KeyRecord) -> KeyRecord:
    return record.model_copy(update={"limits": Limits(units_per_minute=5)})


async def test_a_change_moves_the_etag(store: KeyStore) -> None:
    record, _ = await store.create("acme", "first", ["*"])
    changed = await store.update(record.id, limited, etag=record.etag)
    assert changed.limits.units_per_minute == 5
    assert await store.find(record.id) == changed
    with pytest.raises(EtagMismatch):
        await store.update(record.id, limited, etag=record.etag)
    assert await store.update(record.id, limited) == changed


async def test_no_change_of_many_at_once_is_lost(store: KeyStore) -> None:
    record, _ = await store.create("acme", "first", ["*"])
    await asyncio.gather(
        *(store.rotate(record.id) for _ in range(4)),
        store.update(record.id, limited),
        *(store.revoke(record.id) for _ in range(3)),
        return_exceptions=True,
    )
    found = await store.get(record.id)
    assert found.state() == "revoked"
    assert found.revision == len(found.proofs) + (found.limits == limited(record).limits) + 1


async def test_a_revoked_key_stays_revoked(store: KeyStore) -> None:
    record, _ = await store.create("acme", "first", ["*"])
    once = await store.revoke(record.id)
    assert once.revoked_at is not None
    assert await store.revoke(record.id) == once
    for change in (store.update(record.id, limited), store.rotate(record.id)):
        with pytest.raises(KeyRevoked):
            await change
    assert await store.find(record.id) == once


async def test_an_unknown_key_cannot_be_changed(store: KeyStore) -> None:
    name = "0" * 16
    for change in (store.revoke(name), store.update(name, limited), store.rotate(name)):
        with pytest.raises(KeyNotFound):
            await change


async def test_a_use_is_noted_at_most_once_a_minute(store: KeyStore, redis: Redis) -> None:
    used, _ = await store.create("acme", "used", ["*"])
    idle, _ = await store.create("acme", "idle", ["*"])
    before = time.time()
    await store.touch(used.id)
    (first, never) = await store.last_uses([used.id, idle.id])
    assert first is not None
    assert before <= first <= time.time()
    assert never is None
    await store.touch(used.id)
    assert await store.last_uses([used.id]) == [first]
    assert await store.find(used.id) == used
