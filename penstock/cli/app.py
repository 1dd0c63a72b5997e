"""Every verb of `penstock`: those for callers, and the server's where there is a source tree."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Annotated

import typer

from penstock.cli import checkup, inference, usage
from penstock.cli.audit import audit
from penstock.cli.keys import keys
from penstock.cli.models import models
from penstock.cli.session import Options, fail
from penstock.cli.tenants import tenants

_VERBS = (
    inference.classify,
    inference.entities,
    inference.detect,
    inference.predict,
    inference.embed,
    inference.generate,
    usage.usage,
    usage.limits,
    checkup.doctor,
)
_GROUPS = {"models": models, "tenants": tenants, "keys": keys, "audit": audit}
CALLER_VERBS = {verb.__name__ for verb in _VERBS} | {
    command.name for group in _GROUPS.values() for command in group.registered_commands
}
SERVER_VERBS = {
    "up": "Starts the local cluster and keeps it running.",
    "down": "Ends the local cluster.",
    "status": "Shows what the local cluster runs.",
    "bootstrap": "Makes a fresh cluster's first key.",
}
SERVER_MODEL_VERBS = {
    "register": "Has every replica serve a model package.",
    "retire": "Drains a version and unloads it everywhere.",
    "traffic": "Shares a model's calls among its versions.",
}
"""Verbs of penstock.service.local, which the wheel leaves out."""

SERVER_MODULE = "penstock.service.local.commands"


def in_source_tree() -> bool:
    """Whether the server's code is here too."""
    return importlib.util.find_spec("penstock.service") is not None


def is_for_callers(arguments: Sequence[str]) -> bool:
    """Whether a command line surely names a verb for callers, and so needs no code of the server's.

    Loading that code takes longer than most calls.
    """
    words = set(arguments)
    return bool(words & CALLER_VERBS) and not words & {*SERVER_VERBS, *SERVER_MODEL_VERBS}


def build(*, with_server_verbs: bool = True) -> typer.Typer:
    """The command with every verb that exists here."""
    app = typer.Typer(
        name="penstock",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit status: 0 all is well, 1 the service refused, 2 usage, 3 no gateway reached, "
        "4 deadline passed.",
    )
    app.callback()(_options)
    for verb in _VERBS:
        app.command()(verb)
    for name, group in _GROUPS.items():
        app.add_typer(group, name=name)
    if with_server_verbs:
        _add_server_verbs(app)
    return app


def _add_server_verbs(app: typer.Typer) -> None:
    why = "needs Penstock's source tree, and this is the client package alone: clone the repository"
    if in_source_tree():
        try:
            # By name: in the layers of the imports, the service is above the command.
            app.add_typer(importlib.import_module(SERVER_MODULE).server)
            return
        except ModuleNotFoundError as error:
            why = f"needs {error.name}, which is not installed: go to the source tree"
    for group, verbs, prefix in ((app, SERVER_VERBS, ""), (models, SERVER_MODEL_VERBS, "models ")):
        for name, summary in verbs.items():
            said = f"`penstock {prefix}{name}` {why} and run `make up` there"
            _add_absent(group, name, summary, said)


def _add_absent(app: typer.Typer, name: str, summary: str, why: str) -> None:
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}

    @app.command(name, help=f"{summary} (Needs a source tree.)", context_settings=settings)
    def absent() -> None:
        fail(why)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(importlib.metadata.version("penstock"))
        raise typer.Exit


def _options(
    context: typer.Context,
    endpoint: Annotated[
        str | None, typer.Option(help="host:port, or http://host:port for plaintext.")
    ] = None,
    ca_file: Annotated[str | None, typer.Option(help="PEM file of trusted authorities.")] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Calls Penstock, the self-hosted ML API service.

    PENSTOCK_ENDPOINT and PENSTOCK_API_KEY say where and with which key, or else the configuration
    file, which `penstock up` writes.
    """
    context.obj = Options(endpoint, ca_file)
