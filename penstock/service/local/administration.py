"""The verbs of `penstock` that change a cluster's keys and models, in its own control Redis.

They work on the local cluster where one runs, else on the Redis that the gateway's variables name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from penstock.cli.models import models
from penstock.errors import PenstockError
from penstock.service.api_keys import KeyRecord
from penstock.service.local.records import LOCAL_TENANT, Records
from penstock.service.local.state import DEFAULT_STATE_DIR, read_state
from penstock.service.registry import ModelRecord, TrafficShare
from penstock.service.settings import read_settings

StateDir = Annotated[Path, typer.Option(help="State directory of the local cluster.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DAY_SECONDS = 86_400

keys = typer.Typer(help="API keys: who may call, and what.", no_args_is_help=True)
console = Console()


class AdministrationSettings(BaseSettings):
    """The gateway's own variables, for a cluster that `penstock up` did not start."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_GATEWAY_")

    control_redis_url: str
    soft_redis_url: str = ""
    key_pepper: SecretStr


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for, for people.")],
    scopes: Annotated[list[str], typer.Option("--scope", help="What it may do; repeatable.")] = [  # noqa: B006
        "inference:invoke",
        "embeddings:invoke",
        "models:read",
    ],
    tenant: Annotated[str, typer.Option(help="Whose it is.")] = LOCAL_TENANT,
    highest_tier: Annotated[int, typer.Option(min=1, max=4, help="1 is the most urgent.")] = 1,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="None: no limit.")] = None,
    allowed: Annotated[
        list[str] | None, typer.Option("--model", help="Only these models; repeatable.")
    ] = None,
    expires_days: Annotated[float | None, typer.Option(min=0, help="None: never.")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Json = False,
) -> None:
    """Creates a key and prints it once; only an HMAC of it is kept."""
    with _records(state_dir) as records:
        record, text = records.with_keys(
            lambda store: store.create(
                tenant,
                name,
                scopes,
                highest_tier=highest_tier,
                requests_per_minute=requests_per_minute,
                models=allowed or None,
                expires_at=time.time() + expires_days * DAY_SECONDS if expires_days else None,
            )
        )
    typer.echo(json.dumps({**_described(record), "key": text}) if as_json else text)


@keys.command("list")
def list_keys(state_dir: StateDir = DEFAULT_STATE_DIR, as_json: Json = False) -> None:
    """Lists the keys, newest first, without their secrets."""
    with _records(state_dir) as records:
        found, _ = records.with_keys(lambda store: store.list(most=1_000))
    if as_json:
        typer.echo(json.dumps({"keys": [_described(record) for record in found]}))
        return
    table = Table("id", "tenant", "name", "scopes", "limit/min", "state")
    for record in found:
        limit = str(record.limits.requests_per_minute or "")
        scopes = " ".join(record.scopes)
        table.add_row(record.id, record.tenant, record.name, scopes, limit, _key_state(record))
    console.print(table)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, the 16 digits after psk_.")],
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Json = False,
) -> None:
    """Revokes a key; gateways refuse it within seconds."""
    with _records(state_dir) as records:
        record = records.with_keys(lambda store: store.revoke(key_id))
    typer.echo(json.dumps(_described(record)) if as_json else f"{record.id} is revoked")


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
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None


def _settings() -> AdministrationSettings:
    try:
        return read_settings(AdministrationSettings)
    except SystemExit:
        console.print("no local cluster runs (`penstock up` starts one), nor do variables name one")
        raise


def _described(record: KeyRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"proofs"}) | {"state": _key_state(record)}


def _key_state(record: KeyRecord) -> str:
    if record.revoked_at is not None:
        return "revoked"
    expired = record.expires_at is not None and record.expires_at <= time.time()
    return "expired" if expired else "usable"


def _show(record: ModelRecord, as_json: bool) -> None:
    if as_json:
        typer.echo(record.model_dump_json())
        return
    table = Table("version", "state", "weight", "package", title=record.name)
    for version, found in record.versions.items():
        table.add_row(version, found.state, str(record.weight(version)), found.package_uri)
    console.print(table)
