"""The verbs that read and verify the record: audit list, verify, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.api.audit.v1 import audit_pb2
from penstock.cli import output
from penstock.cli.exports import FORMATS, export_rows
from penstock.cli.inference import Json, Timeout
from penstock.cli.session import REFUSED, fail, session
from penstock.client import Client

audit = typer.Typer(
    help="Who did what, and whether anybody has changed the record.", no_args_is_help=True
)

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
LEDGERS = ("audit", "usage")
PAGE_SIZE = 1000
VERIFY_SECONDS = 300.0
"""Deadline of one page of a verification where none is given."""

Since = Annotated[
    datetime | None,
    typer.Option("--since", formats=_TIMES, help="UTC; 24 hours before the end if not given."),
]
Until = Annotated[
    datetime | None, typer.Option("--until", formats=_TIMES, help="UTC; now if not given.")
]
Tenant = Annotated[str, typer.Option(help="Only this tenant; other than one's own: admin:read.")]
KeyId = Annotated[str, typer.Option("--key", help="Only calls with this key.")]
Method = Annotated[str, typer.Option(help="Only this method; a prefix may end with *.")]
ModelName = Annotated[str, typer.Option("--model", help="Only this model.")]
Resource = Annotated[str, typer.Option(help="Only calls about this file, job, tenant or key.")]
Request = Annotated[str, typer.Option(help="Only the call of this request id.")]
Subject = Annotated[str, typer.Option(help="Only calls for this pseudonym.")]
Decision = Annotated[str, typer.Option(help="Only calls that were allowed, or refused.")]
Payloads = Annotated[bool, typer.Option("--payloads", help="With what was kept of their contents.")]


@audit.command("list")
def list_events(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    tenant: Tenant = "",
    key: KeyId = "",
    method: Method = "",
    model: ModelName = "",
    resource: Resource = "",
    request: Request = "",
    subject: Subject = "",
    decision: Decision = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    payloads: Payloads = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Lists events, newest first."""
    asked = _conditions(tenant, key, method, model, resource, request, subject, decision)
    asked |= {"start": since, "end": until, "include_payloads": payloads, "timeout": timeout}
    found: list[audit_pb2.AuditEvent] = []
    with session(context, as_json) as client:
        for page in _pages(client, min(limit, PAGE_SIZE), asked):
            found += page
            if len(found) >= limit:
                break
    del found[limit:]
    if as_json:
        output.print_json({"events": [output.plain(event) for event in found]})
        return
    columns = ("time (UTC)", "tenant", "key", "method", "model", "outcome", "#segment", "request")
    table = output.new_table(*columns)
    for event in found:
        output.add_row(table, *_cells(event))
    output.show(table)


@audit.command("verify")
def verify(
    context: typer.Context,
    ledger: Annotated[
        str, typer.Option(help="audit or usage; both if not given.", show_default=False)
    ] = "",
    anchors: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of links noted before: they must still be there, and the new heads are"
            " added when all is well. Keep it where the cluster's operators cannot write."
        ),
    ] = None,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Recomputes the chains; ends with status 1 when one is broken."""
    if ledger not in ("", *LEDGERS):
        fail(f"{ledger!r} is no ledger: audit or usage", as_json)
    noted = _read_anchors(anchors, as_json)
    seconds = VERIFY_SECONDS if timeout is None else timeout
    with session(context, as_json) as client:
        told = {
            name: _verify(client, name, noted.get(name, []), seconds)
            for name in ([ledger] if ledger else LEDGERS)
        }
    intact = all(found["intact"] for found in told.values())
    if as_json:
        output.print_json({"intact": intact, "ledgers": told})
    else:
        _show(told)
    if not intact:
        raise typer.Exit(REFUSED)
    if anchors is not None:
        _note(anchors, noted, told)


@audit.command("export")
def export(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Where the files go; made if missing.")],
    format_: Annotated[
        str, typer.Option("--format", help=f"{', '.join(FORMATS)}; parquet needs pyarrow.")
    ] = "jsonl",
    since: Since = None,
    until: Until = None,
    tenant: Tenant = "",
    method: Method = "",
    model: ModelName = "",
    payloads: Payloads = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Writes events, newest first, to files of 50,000 each."""
    if format_ not in FORMATS:
        fail(f"{format_!r} is no format: {', '.join(FORMATS)}", as_json)
    asked = _conditions(tenant, "", method, model, "", "", "", "")
    asked |= {"start": since, "end": until, "include_payloads": payloads, "timeout": timeout}
    with session(context, as_json) as client:
        rows = (_row(event) for page in _pages(client, PAGE_SIZE, asked) for event in page)
        try:
            events, files = export_rows(rows, directory, format_)
        except ModuleNotFoundError as error:
            fail(f"this format needs {error.name}: pip install {error.name}", as_json)
    if as_json:
        output.print_json({"events": events, "files": [str(path) for path in files]})
    else:
        typer.echo(f"{events:,} events in {len(files)} file{'s' * (len(files) != 1)}")


def _conditions(*given: str) -> dict[str, Any]:
    names = ("tenant_id", "key_id", "method", "model", "resource_id", "request_id", "subject")
    asked: dict[str, Any] = dict(zip(names, given, strict=False))
    if decision := given[-1]:
        try:
            value = audit_pb2.AuditDecision.Value(f"AUDIT_DECISION_{decision.upper()}")
        except ValueError:
            fail(f"{decision!r} is no decision: allowed or refused")
        asked["decision"] = value
    return asked


def _pages(
    client: Client, size: int, asked: dict[str, Any]
) -> Iterator[list[audit_pb2.AuditEvent]]:
    token = ""
    while True:
        page = client.audit.query(page_size=size, page_token=token, **asked)
        yield list(page.events)
        token = page.next_page_token
        if not token:
            return


def _cells(event: audit_pb2.AuditEvent) -> tuple[object, ...]:
    return (
        event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        event.tenant_id,
        event.key_id,
        event.method.rpartition(".")[2],
        event.model,
        event.reason or event.code,
        event.segment or "-",
        event.request_id,
    )


def _row(event: audit_pb2.AuditEvent) -> dict[str, Any]:
    """An event as one flat row of plain values; the same columns for every event."""
    row = {
        field.name: getattr(event, field.name)
        for field in event.DESCRIPTOR.fields
        if field.name not in ("time", "usage", "decision", "tier", "input", "output")
    }
    decision = audit_pb2.AuditDecision.Name(event.decision).removeprefix("AUDIT_DECISION_")
    plain = output.plain(event)
    usage = plain.get("usage", {})
    return {
        "time": event.time.ToJsonString(),
        **row,
        "decision": decision.lower(),
        "tier": plain.get("tier", "").removeprefix("SERVICE_TIER_").lower(),
        "unit": usage.get("unit", "").removeprefix("USAGE_UNIT_").lower(),
        "input_units": event.usage.input_units,
        "output_units": event.usage.output_units,
        "input": plain.get("input", ""),
        "output": plain.get("output", ""),
    }


def _verify(
    client: Client, ledger: str, noted: list[dict[str, Any]], timeout: float
) -> dict[str, Any]:
    links = [audit_pb2.SegmentLink(segment=n["segment"], hash=n["hash"]) for n in noted]
    told: dict[str, Any] = {"intact": True, "segments": 0, "events": 0, "faults": []}
    first = 1
    while first:
        answer = client.audit.verify(
            ledger, first_segment=first, known_links=links, timeout=timeout
        )
        told["intact"] = told["intact"] and answer.intact
        told["segments"] += answer.segments
        told["events"] += answer.events
        told["faults"] += [output.plain(fault) for fault in answer.faults]
        if answer.HasField("head"):
            told["head"] = {"segment": answer.head.segment, "hash": answer.head.hash}
            told["sealed_until"] = answer.sealed_until.ToJsonString()
        first = answer.next_segment
    return told


def _show(told: dict[str, Any]) -> None:
    table = output.new_table("ledger", "chain", "#segments", "#events", "sealed until", "head")
    for name, found in told.items():
        state = "intact" if found["intact"] else "BROKEN"
        head = found.get("head", {"segment": "", "hash": ""})
        cells = (state, found["segments"], found["events"], found.get("sealed_until", ""))
        output.add_row(table, name, *cells, f"{head['segment']} {head['hash']}")
    output.show(table)
    faults = [(name, fault) for name, found in told.items() for fault in found["faults"]]
    if faults:
        table = output.new_table("ledger", "#segment", "fault", "what is wrong")
        for name, fault in faults:
            kind = fault["kind"].removeprefix("CHAIN_FAULT_KIND_").replace("_", " ").lower()
            output.add_row(table, name, fault["segment"], kind, fault["description"])
        output.show(table)


def _read_anchors(path: Path | None, as_json: bool) -> dict[str, list[dict[str, Any]]]:
    if path is None or not path.exists():
        return {}
    try:
        noted = json.loads(path.read_text())
        if not isinstance(noted, dict):
            raise TypeError
        return {
            name: [{"segment": int(n["segment"]), "hash": str(n["hash"])} for n in noted[name]]
            for name in LEDGERS
            if name in noted
        }
    except (ValueError, KeyError, TypeError):
        fail(f"{path} is not a file of anchors", as_json)


def _note(path: Path, noted: dict[str, list[dict[str, Any]]], told: dict[str, Any]) -> None:
    for name, found in told.items():
        if "head" in found and found["head"] not in noted.setdefault(name, []):
            noted[name].append(found["head"])
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(noted, indent=1) + "\n")
    fresh.replace(path)
