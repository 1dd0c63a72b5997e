"""The verbs that keep tenants: tenants create, list, get, update, suspend, resume, erase."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.api.admin.v1 import tenants_pb2 as pb
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

tenants = typer.Typer(help="Who may use the cluster, and how much.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The tenant's id.")]
Name = Annotated[str, typer.Option(help="A name for people.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A name, or a prefix and *; repeatable.")
]
Weight = Annotated[int, typer.Option(help="Its share of slack, 1 to 1000.", min=0)]
Retain = Annotated[
    list[str] | None, typer.Option("--retain", help="WHAT=TIME, such as files=30d; repeatable.")
]
Payloads = Annotated[
    bool | None, typer.Option("--payloads/--no-payloads", help="Keep inputs and outputs in audit.")
]


@tenants.command("create")
def create(
    context: typer.Context,
    tenant_id: Id,
    name: Name = "",
    limit: Limit = None,
    budget: Budget = None,
    model: Models = None,
    region: Region = None,
    highest_tier: Tier = None,
    weight: Weight = 0,
    retain: Retain = None,
    payloads: Payloads = None,
    label: Label = None,
    idempotency_key: IdempotencyKey = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Adds a tenant."""
    with session(context, as_json) as client:
        tenant = _described(
            tenant_id, name, limit, budget, model, region, highest_tier, weight, retain, label
        )
        tenant.audit_payloads = bool(payloads)
        made = client.tenants.create(tenant, idempotency_key=idempotency_key, timeout=timeout)
    _show(made, as_json)


@tenants.command("update")
def update(
    context: typer.Context,
    tenant_id: Id,
    name: Name = "",
    limit: Limit = None,
    budget: Budget = None,
    model: Models = None,
    region: Region = None,
    highest_tier: Tier = None,
    weight: Weight = 0,
    retain: Retain = None,
    payloads: Payloads = None,
    label: Label = None,
    clear: Clear = None,
    etag: Etag = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Changes what is given; lists replace what was there. Gateways follow within 5 seconds."""
    with session(context, as_json) as client:
        tenant = _described(
            tenant_id, name, limit, budget, model, region, highest_tier, weight, retain, label
        )
        mask = output.changed_paths(tenant, "id") + list(clear or ())
        if payloads is not None:
            tenant.audit_payloads = payloads
            mask.append("audit_payloads")
        if not mask:
            raise ValueError("nothing to change: see --help")
        tenant.etag = etag
        changed = client.tenants.update(tenant, mask=mask, timeout=timeout)
    _show(changed, as_json)


@tenants.command("list")
def list_tenants(
    context: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option(help="active, suspended or erased; repeatable.")
    ] = None,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Lists the tenants by id, without the erased ones."""
    with session(context, as_json) as client:
        states = [pb.TenantState.Value(f"TENANT_STATE_{one.upper()}") for one in state or ()]
        found = client.tenants.list(states, timeout=timeout)
    if as_json:
        output.print_json({"tenants": [output.plain(tenant) for tenant in found]})
        return
    table = output.new_table("tenant", "name", "state", "highest tier", "limits", "budgets")
    for tenant in found:
        cells = (output.shortened(tenant.display_name), _state(tenant))
        allowed = (limits_text(tenant.limits), budgets_text(tenant.budgets))
        output.add_row(table, tenant.id, *cells, tier_text(tenant.highest_tier), *allowed)
    output.show(table)


@tenants.command("get")
def get(
    context: typer.Context, tenant_id: Id, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Describes one tenant."""
    with session(context, as_json) as client:
        found = client.tenants.get(tenant_id, timeout=timeout)
    _show(found, as_json)


@tenants.command("suspend")
def suspend(
    context: typer.Context, tenant_id: Id, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Refuses its calls within 5 seconds, until it is resumed; nothing is lost."""
    with session(context, as_json) as client:
        changed = client.tenants.suspend(tenant_id, timeout=timeout)
    _show(changed, as_json)


@tenants.command("resume")
def resume(
    context: typer.Context, tenant_id: Id, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Ends a suspension."""
    with session(context, as_json) as client:
        changed = client.tenants.resume(tenant_id, timeout=timeout)
    _show(changed, as_json)


@tenants.command("erase")
def erase(
    context: typer.Context,
    tenant_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Ends a tenant for good: revokes its keys and destroys the key of its pseudonyms."""
    with session(context, as_json) as client:
        found = client.tenants.get(tenant_id, timeout=timeout)
        if not yes:
            named = f"{tenant_id} ({found.display_name})" if found.display_name else tenant_id
            typer.confirm(f"Erase {named} for good?", abort=True, err=True)
        left = client.tenants.erase(tenant_id, found.etag, timeout=timeout)
    _show(left, as_json)


def _described(
    tenant_id: str,
    name: str,
    limit: list[str] | None,
    budget: list[str] | None,
    model: list[str] | None,
    region: list[str] | None,
    highest_tier: str | None,
    weight: int,
    retain: list[str] | None,
    label: list[str] | None,
) -> pb.Tenant:
    tenant = pb.Tenant(
        id=tenant_id,
        display_name=name,
        budgets=budgets_of(budget or ()),
        allowed_models=model or (),
        allowed_regions=region or (),
        highest_tier=tier_of(highest_tier),
        weight=weight,
        labels=dict(pairs(label or ())),
    )
    if limit:
        tenant.limits.CopyFrom(limits_of(limit))
    for what, time in pairs(retain or ()):
        if what not in pb.Retention.DESCRIPTOR.fields_by_name:
            raise ValueError(
                f"{what!r} is not kept: {', '.join(pb.Retention.DESCRIPTOR.fields_by_name)}"
            )
        getattr(tenant.retention, what).FromMilliseconds(round(seconds_of(time) * 1000))
    return tenant


def _show(tenant: pb.Tenant, as_json: bool) -> None:
    if as_json:
        output.print_json(output.plain(tenant))
        return
    kept = (f"{field.name} {time.ToTimedelta()}" for field, time in tenant.retention.ListFields())
    single = (
        f"{entry.model}: {limits_text(entry.limits)} {budgets_text(entry.budgets)}"
        for entry in tenant.model_limits
    )
    output.show_fields(
        {
            "tenant": tenant.id,
            "name": tenant.display_name,
            "state": _state(tenant),
            "highest tier": tier_text(tenant.highest_tier),
            "limits": limits_text(tenant.limits),
            "budgets": budgets_text(tenant.budgets),
            "single models": "\n".join(single),
            "models": ", ".join(tenant.allowed_models),
            "regions": ", ".join(tenant.allowed_regions),
            "weight": tenant.weight,
            "kept": ", ".join(kept),
            "payloads in audit": "yes" if tenant.audit_payloads else "",
            "labels": ", ".join(f"{name}={value}" for name, value in tenant.labels.items()),
            "etag": tenant.etag,
            "created (UTC)": time_text(tenant, "create_time"),
            "changed (UTC)": time_text(tenant, "update_time"),
        }
    )


def _state(tenant: pb.Tenant) -> str:
    return pb.TenantState.Name(tenant.state).removeprefix("TENANT_STATE_").lower()
