"""The verbs of `penstock` that work on a cluster's own control Redis: bootstrap, and its models.

They work on the local cluster where one runs, else on the Redis that the gateway's variables name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from penstock.cli.models import models
from penstock.errors import AlreadyExists, PenstockError
from penstock.service.bootstrap import OPERATORS
from penstock.service.local.records import Records
from penstock.service.local.state import DEFAULT_STATE_DIR, read_state
from penstock.service.registry import ModelRecord, TrafficShare
from penstock.service.settings import read_settings

StateDir = Annotated[Path, typer.Option(help="State directory of the local cluster.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

bootstrapping = typer.Typer()
console = Console()


class AdministrationSettings(BaseSettings):
    """The gateway's own variables, for a cluster that `penstock up` did not start."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_GATEWAY_")

    control_redis_url: str
    soft_redis_url: str = ""
    key_pepper: SecretStr


@bootstrapping.command("bootstrap")
def first_key(
    tenant: Annotated[str, typer.Option(help="Whose the key is.")] = OPERATORS,
    again: Annotated[
        bool, typer.Option("--again", help="One more, where the first was lost.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Json = False,
) -> None:
    """Makes a fresh cluster's first key, which may do everything, and prints it once."""
    with _records(state_dir) as records:
        try:
            text = records.first_key(tenant, again=again)
        except AlreadyExists as error:
            _refuse(f"{error}; --again makes one more")
    typer.echo(json.dumps({"tenant": tenant, "key": text}) if as_json else text)


@models.command("register")
def register(
    package: Annotated[Path, typer.Argument(help="A package's directory, with its manifest.")],
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Json = False,
) -> None:
    """Checks a package byte by byte and has every replica serve it."""
    with _records(state_dir) as records:
        _show(records.register(package), as_json)


@models.command("retire")
def retire(
    model: str, version: str, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: Json = False
) -> None:
    """Drains a version and unloads it everywhere."""
    with _records(state_dir) as records:
        _show(records.with_models(lambda registry: registry.retire(model, version)), as_json)


@models.command("traffic")
def set_traffic(
    model: str,
    shares: Annotated[list[str], typer.Argument(help="VERSION=WEIGHT, such as 1=90 2=10.")],
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Json = False,
) -> None:
    """Shares a model's calls among its versions."""
    parsed = []
    for share in shares:
        version, _, weight = share.rpartition("=")
        if not version or not weight.isdigit():
            raise typer.BadParameter(f"{share!r} is not VERSION=WEIGHT")
        parsed.append(TrafficShare(version=version, weight=int(weight)))
    with _records(state_dir) as records:
        _show(records.with_models(lambda registry: registry.set_traffic(model, parsed)), as_json)


@contextmanager
def _records(state_dir: Path) -> Iterator[Records]:
    """The records to change; what is refused ends the command with status 1."""
    state = read_state(state_dir)
    if state is not None and state.owner.process.alive():
        found = Records(state.control_redis_url, state.soft_redis_url, state.key_pepper)
    else:
        settings = _settings()
        pepper = settings.key_pepper.get_secret_value()
        found = Records(settings.control_redis_url, settings.soft_redis_url, pepper)
    try:
        yield found
    except (PenstockError, RedisError) as error:
        _refuse(str(error))


def _refuse(why: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(why, style="red", markup=False)
    raise typer.Exit(1) from None


def _settings() -> AdministrationSettings:
    try:
        return read_settings(AdministrationSettings)
    except SystemExit:
        console.print("no local cluster runs (`penstock up` starts one), nor do variables name one")
        raise


def _show(record: ModelRecord, as_json: bool) -> None:
    if as_json:
        typer.echo(record.model_dump_json())
        return
    table = Table("version", "state", "weight", "package", title=record.name)
    for version, found in record.versions.items():
        table.add_row(version, found.state, str(record.weight(version)), found.package_uri)
    console.print(table)
