"""The verb `doctor`: the checks of this machine, and whether the gateway can be called."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path

import typer

from penstock.cli import doctor as machine
from penstock.cli import output
from penstock.cli.inference import Json
from penstock.cli.session import REFUSED, Options
from penstock.client import Client, ConfigurationError, Unreachable, find_connection
from penstock.errors import PenstockError, PermissionDenied, Unauthenticated


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Says what is missing here, and the line that mends it.

    In a source tree it checks whether Penstock can run on this machine; everywhere, whether the
    gateway can be called, which is only a warning.
    """
    options = context.obj if isinstance(context.obj, Options) else Options()
    findings = []
    if importlib.util.find_spec("penstock.service") is not None:
        findings = machine.examine(Path(machine.__file__).resolve().parents[2])
    findings.append(check_gateway(options))
    status, line = machine.verdict(findings)
    if as_json:
        output.print_json({"ok": not status, "checks": [asdict(found) for found in findings]})
    else:
        typer.echo(machine.report(findings))
        if len(findings) > 1:
            typer.echo(line)
    if status:
        raise typer.Exit(REFUSED)


def check_gateway(options: Options) -> machine.Finding:
    """Whether a gateway is configured, answers, and takes the key."""
    try:
        connection = find_connection(options.endpoint, ca_file=options.ca_file)
        with Client(options.endpoint, ca_file=options.ca_file, timeout=5.0) as client:
            client.models.list()
    except ConfigurationError as error:
        mend = "penstock up  # or export PENSTOCK_ENDPOINT=host:port"
        return machine.Finding("gateway", machine.WARNING, str(error), mend)
    except Unreachable as error:
        mend = f"penstock up  # or correct the endpoint {connection.endpoint}"
        detail = f"{connection.endpoint} cannot be reached: {error.message}"
        return machine.Finding("gateway", machine.WARNING, detail, mend)
    except PermissionDenied:
        return machine.Finding("gateway", machine.OK, f"{connection.endpoint} takes the key")
    except Unauthenticated as error:
        detail = f"{connection.endpoint} refuses the key: {error.message}"
        mend = "export PENSTOCK_API_KEY=psk_..."
        return machine.Finding("gateway", machine.WARNING, detail, mend)
    except PenstockError as error:
        detail = f"{connection.endpoint}: {error.reason}: {error.message}"
        return machine.Finding("gateway", machine.WARNING, detail, "penstock models list")
    return machine.Finding("gateway", machine.OK, f"{connection.endpoint} takes the key")
