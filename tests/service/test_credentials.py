"""What credentials look like: a mistyped one is not looked up, and none prints its secret."""

from __future__ import annotations

import pytest

from penstock.service.credentials import (
    SCOPES,
    SIGNING_SECRET_PREFIX,
    WILDCARDS,
    key_text,
    mint,
    parse,
    signing_secret,
)


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


def test_neither_kind_of_text_passes_for_the_other() -> None:
    text, key_id, secret = mint()
    shared = key_text(SIGNING_SECRET_PREFIX, key_id, secret)
    assert parse(text, SIGNING_SECRET_PREFIX) is None
    assert parse(shared) is None
    assert parse(shared.replace("pss", "psk", 1)) is None
    assert parse(shared, SIGNING_SECRET_PREFIX) == parse(text)


def test_a_shared_secret_depends_on_pepper_key_and_salt() -> None:
    made = {
        signing_secret(pepper, key_id, salt)
        for pepper in (b"one", b"two")
        for key_id in ("0" * 16, "1" * 16)
        for salt in ("0" * 32, "1" * 32)
    }
    assert len(made) == 8
    assert {len(secret) for secret in made} == {43}


def test_there_is_a_wildcard_for_every_family() -> None:
    assert {scope.partition(":")[0] for scope in SCOPES} == {
        wildcard.partition(":")[0] for wildcard in WILDCARDS - {"*"}
    }
