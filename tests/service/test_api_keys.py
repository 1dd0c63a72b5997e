"""API keys: a mistyped one is not looked up, and nothing stored yields a working one."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from penstock.errors import InvalidArgument, NotFound
from penstock.service import keys
from penstock.service.api_keys import KeyStore, mac, mint, parse

PEPPER = b"a pepper of some length"


@pytest.fixture
def store(redis: Redis) -> KeyStore:
    return KeyStore(redis, PEPPER)


def test_a_new_key_is_read_back() -> None:
    text, key_id, secret = mint()
    key = parse(text)
    assert key is not None
    assert (key.id, key.secret) == (key_id, secret)


def test_every_key_is_new() -> None:
    assert len({mint()[0] for _ in range(1000)}) == 1000


def test_a_mistyped_key_is_no_key() -> None:
    text, _, _ = mint()
    for position in range(4, len(text)):
        for wrong in "0aZ":
            if text[position] != wrong:
                assert parse(text[:position] + wrong + text[position + 1 :]) is None
    for position in range(len(text) - 1):
        one, two = text[position], text[position + 1]
        if one != two:
            assert parse(text[:position] + two + one + text[position + 2 :]) is None


@pytest.mark.parametrize("text", ["", "psk_", "sk-123", "psk_a_b_c", "psk_é" + "0" * 60])
def test_other_texts_are_no_keys(text: str) -> None:
    assert parse(text) is None


def test_a_key_with_something_around_it_is_no_key() -> None:
    text, _, _ = mint()
    assert [parse(t) for t in (text + "\n", " " + text, text + "0", text[:-1])] == [None] * 4


def test_a_key_does_not_print_its_secret() -> None:
    key = parse(mint()[0])
    assert key is not None
    assert key.secret not in repr(key)


async def test_a_stored_key_matches_its_holder_only(store: KeyStore) -> None:
    record, text = await store.create("acme", "first", ["inference:*"])
    found = await store.find(record.id)
    key, other = parse(text), parse(mint()[0])
    assert found == record
    assert key is not None
    assert other is not None
    assert store.matches(record, key)
    assert not store.matches(record, other)
    assert not store.matches(record, type(key)(key.id, other.secret))


async def test_another_pepper_matches_nothing(store: KeyStore, redis: Redis) -> None:
    record, text = await store.create("acme", "first", ["*"])
    key = parse(text)
    assert key is not None
    assert not KeyStore(redis, b"another pepper").matches(record, key)


async def test_neither_the_key_nor_its_secret_is_stored(store: KeyStore, redis: Redis) -> None:
    record, text = await store.create("acme", "first", ["*"])
    key = parse(text)
    assert key is not None
    stored = await redis.get(keys.api_key(record.id))
    assert isinstance(stored, bytes)
    assert key.secret.encode() not in stored
    assert mac(PEPPER, key.secret).encode() in stored


async def test_keys_are_listed_in_the_order_they_were_made(store: KeyStore) -> None:
    made = [(await store.create("acme", f"key {n}", ["*"]))[0] for n in range(5)]
    assert await store.list() == made


async def test_a_revoked_key_stays_revoked(store: KeyStore) -> None:
    record, _ = await store.create("acme", "first", ["*"])
    once = await store.revoke(record.id)
    assert once.revoked_at is not None
    assert await store.revoke(record.id) == once
    assert await store.find(record.id) == once


async def test_an_unknown_key_cannot_be_revoked(store: KeyStore) -> None:
    with pytest.raises(NotFound):
        await store.revoke("0" * 16)


async def test_a_key_for_a_scope_that_does_not_exist_is_not_made(store: KeyStore) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await store.create("Acme!", "first", ["inference:invoke", "inference:destroy"])
    assert [violation.field for violation in caught.value.violations] == ["scopes[1]", "tenant"]
    assert await store.list() == []
