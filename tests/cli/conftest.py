"""The command in this process, against a scripted server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.app import build
from tests.client.scripted import Scripted, Served


class Run(Protocol):
    """Runs `penstock` with these arguments."""

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result: ...


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.stop()


@pytest.fixture
def scripted(served: Served) -> Scripted:
    return served.scripted


@pytest.fixture
def environment(served: Served, tmp_path: Path) -> dict[str, str | None]:
    """Configured as `penstock up` does it, and not otherwise."""
    path = tmp_path / "config.json"
    stored = {"endpoint": served.endpoint, "api_key": "psk_test", "tls": False, "ca_file": None}
    path.write_text(json.dumps(stored))
    return {
        "PENSTOCK_CONFIG": str(path),
        "PENSTOCK_ENDPOINT": None,
        "PENSTOCK_API_KEY": None,
        "PENSTOCK_CA_FILE": None,
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def run(environment: dict[str, str | None]) -> Run:
    app, runner = build(), CliRunner()

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        result: Any = runner.invoke(app, list(arguments), input=stdin, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.stderr
        return result  # type: ignore[no-any-return]

    return run
