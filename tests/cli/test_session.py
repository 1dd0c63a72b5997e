"""Failures end with a message, never a stack trace, and with the exit status of their kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from grpc_status import rpc_status

from penstock import errors
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.service.rpc import status_of
from tests.cli.conftest import Run
from tests.client.scripted import Context, Scripted

TOO_LONG = errors.InputTooLong(
    "two texts are too long",
    violations=[errors.FieldViolation("texts[0]", "300 tokens, 256 at most")],
)


def refusing(scripted: Scripted, error: errors.PenstockError) -> None:
    def behave(_: Any, context: Context) -> None:
        status = rpc_status.to_status(status_of(error))
        context.set_trailing_metadata((("x-request-id", "request-7"), *status.trailing_metadata))
        context.abort(status.code, status.details)

    scripted.behaviours["Classify"] = behave


def test_a_refusal_says_everything_that_the_service_said(run: Run, scripted: Scripted) -> None:
    refusing(scripted, TOO_LONG)
    result = run("classify", "m", "hello")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "INPUT_TOO_LONG: two texts are too long" in result.stderr
    assert "texts[0]: 300 tokens, 256 at most" in result.stderr
    assert "request id request-7" in result.stderr


def test_a_limit_says_when_to_come_back(run: Run, scripted: Scripted) -> None:
    refusing(scripted, errors.RateLimited("60 requests a minute", 2.5))
    result = run("classify", "m", "hello")
    assert result.exit_code == 1
    assert "try again in 2.5 s" in result.stderr


def test_a_refusal_is_json_for_scripts(run: Run, scripted: Scripted) -> None:
    refusing(scripted, TOO_LONG)
    result = run("classify", "m", "hello", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)["error"]
    assert (error["reason"], error["request_id"]) == ("INPUT_TOO_LONG", "request-7")
    assert error["violations"][0]["field"] == "texts[0]"


def test_nobody_there_is_a_status_of_its_own(run: Run) -> None:
    result = run("--endpoint", "http://127.0.0.1:1", "classify", "m", "hello")
    assert result.exit_code == 3
    assert "UNREACHABLE" in result.stderr


def test_a_deadline_is_a_status_of_its_own(run: Run, scripted: Scripted) -> None:
    released = threading.Event()
    scripted.behaviours["Classify"] = lambda request, context: released.wait(5)
    assert run("classify", "m", "hello", "--timeout", "0.1").exit_code == 4
    released.set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["classify", "m"], "no texts"),
        (["classify", "m", "a", "--file", "b"], "not both"),
        (["classify", "m", "--file", "/no/such/file"], "No such file"),
        (["detect", "m", "/no/such/image.png"], "No such file"),
        (["predict", "m"], "either --row"),
        (["predict", "m", "--row", "{"], "not JSON"),
        (["predict", "m", "--row", "[1]"], "JSON object"),
        (["predict", "m", "--row", '{"a": []}'], "not a number"),
        (["generate", "m"], "no prompt"),
        (["classify"], "Missing argument"),
        (["pour"], "No such command"),
    ],
)
def test_what_makes_no_sense_is_usage(run: Run, arguments: list[str], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_no_configuration_is_usage_and_says_the_way_out(
    run: Run, environment: dict[str, str | None]
) -> None:
    environment["PENSTOCK_CONFIG"] = "/nowhere"
    result = run("models", "list")
    assert result.exit_code == 2
    assert "PENSTOCK_ENDPOINT" in result.stderr


def endless(_: Any, context: Context) -> Iterator[inference.GenerateResponse]:
    """A generation that only a cancel ends."""
    ended = threading.Event()
    context.add_callback(ended.set)
    while not ended.wait(0.002):
        yield inference.GenerateResponse(delta="and ")


@pytest.fixture
def generating(
    scripted: Scripted, environment: dict[str, str | None]
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own, in the middle of a generation."""
    scripted.behaviours["Generate"] = endless
    known = {name: value for name, value in environment.items() if value is not None}
    with subprocess.Popen(
        [sys.executable, "-c", "from penstock.cli.main import main; main()", "generate", "m", "x"],
        env=os.environ | known,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(8) == b"and and ", "tokens are shown as they come"
        yield process


def test_an_interrupt_stops_a_generation(
    generating: subprocess.Popen[bytes], scripted: Scripted
) -> None:
    generating.send_signal(signal.SIGINT)
    _, said = generating.communicate(timeout=10)
    assert generating.returncode == 130
    assert said == b""
    assert scripted.ended.wait(2)


def test_a_reader_that_has_enough_ends_it_quietly(
    generating: subprocess.Popen[bytes], scripted: Scripted
) -> None:
    assert generating.stdout is not None
    assert generating.stderr is not None
    generating.stdout.close()
    assert generating.wait(10) == 141
    assert generating.stderr.read() == b""
    assert scripted.ended.wait(2)
