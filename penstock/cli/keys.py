"""The verbs that keep keys: keys create, list, get, update, rotate, revoke."""

from __future__ import annotations

import base64
import binascii
import time
from pathlib import Path
from typing import Annotated

import typer

from penstock.api.admin.v1 import keys_pb2 as pb
from penstock.cli import output
from penstock.cli.allowances import (
    Budget,
    Clear,
    Etag,
    IdempotencyKey,
    Label,
    Limit,
    Region,
    Tier,
    budgets_of,
    budgets_text,
    limits_of,
    limits_text,
    pairs,
    seconds_of,
    tier_of,
    tier_text,
    time_text,
)
from penstock.cli.inference import Json, Timeout
from penstock.cli.session import session
from penstock.client import Client

keys = typer.Typer(help="The keys under which tenants call.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The key's id, the 16 digits after psk_.")]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", help="Such as inference:invoke, files:* or *; repeatable."),
]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only these; repeatable.")]
Expires = Annotated[str, typer.Option(help="When it ends, from now: 90d, 12h.")]
PublicKey = Annotated[
    str, typer.Option(help="An Ed25519 public key: 64 hex digits, or a PEM file.")
]

_ORDINARY_SCOPES = ("inference:invoke", "embeddings:invoke", "models:read")
_ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""Of a SubjectPublicKeyInfo that holds an Ed25519 key (RFC 8410)."""
_KEY_ID_DIGITS = 16


@keys.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for, for people.")],
    tenant: Annotated[str, typer.Option(help="Whose it is; by default the caller's own.")] = "",
    scope: Scope = None,
    limit: Limit = None,
    budget: Budget = None,
    model: Models = None,
    region: Region = None,
    highest_tier: Tier = None,
    expires: Expires = "",
    label: Label = None,
    public_key: PublicKey = "",
    shared_secret: Annotated[bool, typer.Option(help="Signs by HMAC-SHA256.")] = False,
    spiffe_id: Annotated[str, typer.Option(help="Stands for a workload of the mesh.")] = "",
    token: Annotated[str, typer.Option(help="'ISSUER SUBJECT': stands for its tokens.")] = "",
    idempotency_key: IdempotencyKey = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Makes a key and prints the text that its bearer needs, once; an API key unless said."""
    with session(context, as_json) as client:
        scopes = scope or list(_ORDINARY_SCOPES)
        key = _described(name, scopes, limit, budget, model, region, highest_tier, expires, label)
        key.tenant_id = tenant or _own_tenant(client)
        credential = _credential(public_key, shared_secret, spiffe_id, token)
        if credential is not None:
            key.credential.CopyFrom(credential)
        made = client.keys.create(key, idempotency_key=idempotency_key, timeout=timeout)
    if as_json:
        output.print_json(output.plain(made))
    elif made.api_key:
        typer.echo(made.api_key)
    else:
        _show(made.key, as_json)


@keys.command("list")
def list_keys(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    state: Annotated[
        list[str] | None, typer.Option(help="active, expired or revoked; repeatable.")
    ] = None,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Lists the keys, newest first, without their secrets."""
    with session(context, as_json) as client:
        states = [pb.KeyState.Value(f"KEY_STATE_{one.upper()}") for one in state or ()]
        found = client.keys.list(tenant, states, timeout=timeout)
    if as_json:
        output.print_json({"keys": [output.plain(key) for key in found]})
        return
    table = output.new_table("key", "tenant", "name", "credential", "scopes", "state", "last used")
    for key in found:
        cells = (key.tenant_id, output.shortened(key.display_name), _kind(key))
        used = time_text(key, "last_use_time")
        output.add_row(table, key.id, *cells, " ".join(key.scopes), _state(key), used)
    output.show(table)


@keys.command("get")
def get(context: typer.Context, key_id: Id, timeout: Timeout = None, as_json: Json = False) -> None:
    """Describes one key."""
    with session(context, as_json) as client:
        found = client.keys.get(key_id, timeout=timeout)
    _show(found, as_json)


@keys.command("update")
def update(
    context: typer.Context,
    key_id: Id,
    name: Annotated[str, typer.Option(help="What it is for, for people.")] = "",
    scope: Scope = None,
    limit: Limit = None,
    budget: Budget = None,
    model: Models = None,
    region: Region = None,
    highest_tier: Tier = None,
    expires: Expires = "",
    label: Label = None,
    clear: Clear = None,
    etag: Etag = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Changes what is given; lists replace what was there. Gateways follow within 5 seconds."""
    with session(context, as_json) as client:
        key = _described(
            name, scope or [], limit, budget, model, region, highest_tier, expires, label
        )
        mask = output.changed_paths(key) + list(clear or ())
        if not mask:
            raise ValueError("nothing to change: see --help")
        key.id, key.etag = key_id, etag
        changed = client.keys.update(key, mask=mask, timeout=timeout)
    _show(changed, as_json)


@keys.command("rotate")
def rotate(
    context: typer.Context,
    key_id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old one stays good: 24h, 0s.")] = "24h",
    public_key: PublicKey = "",
    idempotency_key: IdempotencyKey = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Gives a key a new secret and prints it, once."""
    with session(context, as_json) as client:
        renewed = client.keys.rotate(
            key_id,
            overlap=seconds_of(overlap),
            public_key=_public_key(public_key) if public_key else b"",
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
    if as_json:
        output.print_json(output.plain(renewed))
    elif renewed.api_key:
        typer.echo(renewed.api_key)
    else:
        _show(renewed.key, as_json)


@keys.command("revoke")
def revoke(
    context: typer.Context, key_id: Id, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Ends a key for good; gateways refuse it within seconds."""
    with session(context, as_json) as client:
        revoked = client.keys.revoke(key_id, timeout=timeout)
    if as_json:
        output.print_json(output.plain(revoked))
    else:
        typer.echo(f"{revoked.id} is revoked")


def _own_tenant(client: Client) -> str:
    """The tenant of the key that the command itself uses."""
    kind, _, rest = client.connection.api_key.partition("_")
    key_id = rest.partition("_")[0]
    if kind != "psk" or len(key_id) != _KEY_ID_DIGITS:
        raise ValueError("whose is it to be? Say --tenant")
    return client.keys.get(key_id).tenant_id


def _described(
    name: str,
    scopes: list[str],
    limit: list[str] | None,
    budget: list[str] | None,
    model: list[str] | None,
    region: list[str] | None,
    highest_tier: str | None,
    expires: str,
    label: list[str] | None,
) -> pb.Key:
    key = pb.Key(
        display_name=name,
        scopes=scopes,
        budgets=budgets_of(budget or ()),
        allowed_models=model or (),
        allowed_regions=region or (),
        highest_tier=tier_of(highest_tier),
        labels=dict(pairs(label or ())),
    )
    if limit:
        key.limits.CopyFrom(limits_of(limit))
    if expires:
        key.expire_time.FromMilliseconds(round((time.time() + seconds_of(expires)) * 1000))
    return key


def _credential(
    public_key: str, shared_secret: bool, spiffe_id: str, token: str
) -> pb.Credential | None:
    """What the bearer shows, if not an API key."""
    if sum(map(bool, (public_key, shared_secret, spiffe_id, token))) > 1:
        raise ValueError("give one of --public-key, --shared-secret, --spiffe-id and --token")
    if public_key:
        signing = pb.SigningCredential(ed25519_public_key=_public_key(public_key))
        return pb.Credential(signing=signing)
    if shared_secret:
        return pb.Credential(hmac=pb.HmacCredential())
    if spiffe_id:
        return pb.Credential(spiffe=pb.SpiffeCredential(spiffe_id=spiffe_id))
    if token:
        issuer, _, subject = token.partition(" ")
        return pb.Credential(jwt=pb.JwtCredential(issuer=issuer, subject=subject))
    return None


def _public_key(given: str) -> bytes:
    try:
        return bytes.fromhex(given)
    except ValueError:
        lines = Path(given).read_text().split("-----")
    try:
        encoded = base64.b64decode("".join(lines[2].split()), validate=True)
    except (IndexError, binascii.Error):
        encoded = b""
    if not encoded.startswith(_ED25519_PREFIX):
        raise ValueError(f"{given} holds no Ed25519 public key in PEM")
    return encoded.removeprefix(_ED25519_PREFIX)


def _show(key: pb.Key, as_json: bool) -> None:
    if as_json:
        output.print_json(output.plain(key))
        return
    output.show_fields(
        {
            "key": key.id,
            "tenant": key.tenant_id,
            "name": key.display_name,
            "state": _state(key),
            "credential": _kind(key),
            "scopes": " ".join(key.scopes),
            "highest tier": tier_text(key.highest_tier),
            "limits": limits_text(key.limits),
            "budgets": budgets_text(key.budgets),
            "models": ", ".join(key.allowed_models),
            "regions": ", ".join(key.allowed_regions),
            "labels": ", ".join(f"{name}={value}" for name, value in key.labels.items()),
            "etag": key.etag,
            "created (UTC)": time_text(key, "create_time"),
            "ends (UTC)": time_text(key, "expire_time"),
            "rotated (UTC)": time_text(key, "rotate_time"),
            "revoked (UTC)": time_text(key, "revoke_time"),
            "last used (UTC)": time_text(key, "last_use_time"),
        }
    )


def _kind(key: pb.Key) -> str:
    """What its bearer shows."""
    credential = key.credential
    return {
        "signing": f"ed25519 {credential.signing.ed25519_public_key.hex()}",
        "hmac": f"hmac {credential.hmac.prefix}",
        "spiffe": credential.spiffe.spiffe_id,
        "jwt": f"{credential.jwt.subject} of {credential.jwt.issuer}",
    }.get(credential.WhichOneof("kind") or "", credential.api_key.prefix)


def _state(key: pb.Key) -> str:
    return pb.KeyState.Name(key.state).removeprefix("KEY_STATE_").lower()
