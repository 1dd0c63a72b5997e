"""The verbs that the wheel only names are those that a source tree really has."""

from __future__ import annotations

import pytest
from typer.main import get_command

from penstock.cli.app import SERVER_MODEL_VERBS, SERVER_VERBS, build, is_for_callers


def test_every_server_verb_is_named_in_the_wheel_too() -> None:
    app = get_command(build())
    verbs = set(app.commands)  # type: ignore[attr-defined]
    client = {"classify", "entities", "detect", "predict", "embed", "generate", "doctor"}
    client |= {"usage", "limits"}
    assert verbs == client | {"models", "tenants", "keys", "audit"} | set(SERVER_VERBS)
    model_verbs = set(app.commands["models"].commands)  # type: ignore[attr-defined]
    assert model_verbs == {"list", "get", "versions"} | set(SERVER_MODEL_VERBS)


@pytest.mark.parametrize(
    ("line", "for_callers"),
    [
        ("classify m hello", True),
        ("--endpoint http://h:1 models list --json", True),
        ("models get fraud", True),
        ("--help", False),
        ("models --help", False),
        ("models register .", False),
        ("keys list", True),
        ("tenants erase acme --yes", True),
        ("bootstrap --again", False),
        ("up", False),
        ("", False),
    ],
)
def test_only_callers_go_without_the_servers_code(line: str, for_callers: bool) -> None:
    assert is_for_callers(line.split()) == for_callers
