"""One verb's call: opens the client, and turns every failure into a message and an exit status.

Exit statuses: 0 all is well, 1 the service refused, 2 the command line or the configuration makes
no sense, 3 no gateway could be reached, 4 the deadline passed, 130 interrupted, 141 nobody reads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from penstock.client import Client, ConfigurationError, Unreachable
from penstock.errors import DeadlineExceeded, PenstockError

REFUSED = 1
USAGE = 2
UNREACHABLE = 3
DEADLINE = 4
INTERRUPTED = 130
PIPE_CLOSED = 141


@dataclass(frozen=True)
class Options:
    """What is said before the verb."""

    endpoint: str | None = None
    ca_file: str | None = None


@contextmanager
def session(context: typer.Context, as_json: bool) -> Iterator[Client]:
    """A client for the block; what fails inside ends the command with its exit status."""
    options = context.obj if isinstance(context.obj, Options) else Options()
    before = signal.signal(signal.SIGINT, _leave_at_once)
    try:
        with Client(options.endpoint, ca_file=options.ca_file) as client:
            yield client
    except PenstockError as error:
        _report(error, as_json)
        raise typer.Exit(status_of(error)) from None
    except BrokenPipeError:
        # As for any program in a pipe: `| head` has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except (ConfigurationError, OSError, TypeError, ValueError) as error:
        fail(str(error), as_json)
    finally:
        signal.signal(signal.SIGINT, before)


def _leave_at_once(*_: object) -> None:
    # A KeyboardInterrupt inside gRPC, just as it starts a call, leaves a channel whose close()
    # waits for ever: 2 of 150. The end of the connection cancels the call on the server as well.
    os._exit(INTERRUPTED)


def status_of(error: PenstockError) -> int:
    """The exit status that tells a script what kind of failure it was."""
    if isinstance(error, Unreachable):
        return UNREACHABLE
    return DEADLINE if isinstance(error, DeadlineExceeded) else REFUSED


def fail(message: str, as_json: bool = False) -> NoReturn:
    """Ends the command because what was asked makes no sense."""
    if as_json:
        typer.echo(json.dumps({"error": {"reason": "USAGE", "message": message}}), err=True)
    else:
        _stderr().print(Text(f"penstock: {message}", style="red"))
    raise typer.Exit(USAGE)


def described(error: PenstockError) -> dict[str, Any]:
    """The error for scripts."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "violations": [asdict(violation) for violation in error.violations],
        "retry_after_seconds": error.retry_after_seconds,
        "request_id": error.request_id,
        "metadata": dict(error.metadata),
    }


def _report(error: PenstockError, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"error": described(error)}), err=True)
        return
    console = _stderr()
    listed = error.violations and error.message.startswith(error.violations[0].field)
    headline = error.reason if listed else f"{error.reason}: {error.message}"
    console.print(Text(headline, style="red"))
    for violation in error.violations:
        console.print(Text(f"  {violation.field}: {violation.description}"))
    if error.retry_after_seconds is not None:
        console.print(Text(f"  try again in {error.retry_after_seconds:g} s"))
    if error.request_id:
        console.print(Text(f"  request id {error.request_id}", style="dim"))
    if isinstance(error, Unreachable):
        console.print(Text("  `penstock doctor` says what it was told about the gateway"))


def _stderr() -> Console:
    # Long ids and messages are copied and searched for: they are never wrapped.
    return Console(stderr=True, soft_wrap=True, no_color=bool(os.environ.get("NO_COLOR")) or None)
