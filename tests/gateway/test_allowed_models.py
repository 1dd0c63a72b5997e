"""Which models a key may use: its own within its tenant's, and nobody else's fine-tuned ones."""

from __future__ import annotations

import pytest

from gateway.allowed_models import AllowedModels, owner_of


def allowed(models: AllowedModels, *names: str) -> list[bool]:
    return [name in models for name in names]


def test_nothing_said_allows_every_public_model() -> None:
    assert allowed(AllowedModels("acme"), "fraud", "team-a") == [True, True]


def test_a_tenant_may_use_its_names_and_prefixes() -> None:
    models = AllowedModels("acme", ("fraud", "team-*"))
    assert allowed(models, "fraud", "team-a", "team-", "fraud-2", "team", "*") == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_key_may_use_its_names_within_the_tenants() -> None:
    models = AllowedModels("acme", ("team-*",), ("team-a", "fraud"))
    assert allowed(models, "team-a", "team-b", "fraud") == [True, False, False]
    assert allowed(AllowedModels("acme", (), ()), "fraud", "ft:a:acme:x") == [False, False]


@pytest.mark.parametrize("patterns", [(), ("fraud",), ("*",), ("ft:*",)])
def test_a_fine_tuned_model_is_its_own_tenants_alone(patterns: tuple[str, ...]) -> None:
    models = AllowedModels("acme", patterns)
    mine, deeper = "ft:fraud:acme:mine", "ft:ft:fraud:bolt:one:acme:two"
    theirs = ("ft:fraud:bolt:acme", "ft:acme:bolt:x", "ft:acme", "ft:", "ft:fraud:acme:x:y")
    assert allowed(models, mine, deeper) == [True, True]
    assert allowed(models, *theirs) == [False] * len(theirs)


def test_a_fine_tuned_model_must_be_among_the_keys_names() -> None:
    models = AllowedModels("acme", (), ("ft:fraud:acme:mine",))
    assert allowed(models, "ft:fraud:acme:mine", "ft:fraud:acme:other") == [True, False]


def test_what_is_no_name_is_not_allowed() -> None:
    assert None not in AllowedModels("acme")


def test_an_owner_is_read_from_the_right() -> None:
    assert owner_of("ft:ft:a:b:c:acme:x") == "acme"
    assert owner_of("fraud:acme:x") == ""
