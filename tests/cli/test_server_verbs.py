"""The verbs that the wheel only names are those that a source tree really has."""

from __future__ import annotations

from typer.main import get_command

from penstock.cli.main import SERVER_MODEL_VERBS, SERVER_VERBS, build


def test_every_server_verb_is_named_in_the_wheel_too() -> None:
    app = get_command(build())
    verbs = set(app.commands)  # type: ignore[attr-defined]
    client = {"classify", "entities", "detect", "predict", "embed", "generate", "doctor", "models"}
    assert verbs == client | set(SERVER_VERBS)
    model_verbs = set(app.commands["models"].commands)  # type: ignore[attr-defined]
    assert model_verbs == {"list", "get", "versions"} | set(SERVER_MODEL_VERBS)
