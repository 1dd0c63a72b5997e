"""The verbs that say what was used and what may still be used: usage, limits."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from penstock.api.types.v1 import limits_pb2, metadata_pb2
from penstock.api.usage.v1 import usage_pb2 as pb
from penstock.cli import output
from penstock.cli.inference import Json, Timeout
from penstock.cli.session import fail, session
from penstock.client.usage import DIMENSIONS

_BAR_CELLS = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def _word(kind: Any, prefix: str) -> Callable[[int], str]:
    return lambda value: kind.Name(value).removeprefix(prefix).lower() if value else "-"


_unit = _word(metadata_pb2.UsageUnit, "USAGE_UNIT_")
_tier = _word(metadata_pb2.ServiceTier, "SERVICE_TIER_")
_family = _word(metadata_pb2.ApiFamily, "API_FAMILY_")
_subject = _word(pb.LimitSubject, "LIMIT_SUBJECT_")
_kind = _word(pb.LimitKind, "LIMIT_KIND_")
_period = _word(limits_pb2.BudgetPeriod, "BUDGET_PERIOD_")
_CELLS: Mapping[str, Callable[[pb.UsageRow], str]] = {
    "tenant": lambda row: row.tenant_id,
    "key": lambda row: row.key_id,
    "model": lambda row: row.model,
    "family": lambda row: _family(row.family),
    "tier": lambda row: _tier(row.tier),
    "day": lambda row: row.day.ToDatetime().strftime("%Y-%m-%d"),
}


def usage(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(help="How to split: any of tenant,key,model,family,tier,day.")
    ] = "day,model",
    days: Annotated[int, typer.Option(help="Days, today included.", min=1, max=401)] = 30,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Only this key.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model.")] = None,
    timeout: Timeout = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Sums what was used, in units and in money, over whole UTC days."""
    split: list[Any] = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in split if name not in DIMENSIONS]
    if unknown:
        fail(f"--by {unknown[0]}: there are {', '.join(_CELLS)}", as_json)
    with session(context, as_json) as client:
        rows = client.usage.query(
            split,
            days=days,
            tenants=tenant or (),
            keys=key or (),
            models=model or (),
            timeout=timeout,
        )
    if as_json:
        output.print_json({"rows": [output.plain(row) for row in rows]})
    elif as_csv:
        _print_csv(split, rows)
    elif not rows:
        typer.echo("Nothing was used.")
    else:
        _print_table(split, rows)
        _print_chart(split, rows)


def limits(context: typer.Context, timeout: Timeout = None, as_json: Json = False) -> None:
    """Says what the key may use, and what of it is left now."""
    with session(context, as_json) as client:
        found = client.usage.limits(timeout=timeout)
    if as_json:
        output.print_json(output.plain(found))
        return
    if not found.limits and not found.budgets:
        typer.echo("Nothing is limited.")
        return
    table = output.new_table("whose", "what", "#allowed", "#left", "again in full")
    for limit in found.limits:
        whose = f"{_subject(limit.subject)} {limit.model}".rstrip()
        cells = (_kind(limit.kind).replace("_", " "), f"{limit.limit:,}", f"{limit.remaining:,}")
        output.add_row(table, whose, *cells, _moment(limit))
    for status in found.budgets:
        budget = status.budget
        whose = f"{_subject(status.subject)} {status.model}".rstrip()
        left = max(0, budget.amount - status.spent - status.reserved)
        counted = budget.currency or _unit(budget.unit) + "s"
        amounts = [_amount(amount, budget.currency) for amount in (budget.amount, left)]
        output.add_row(
            table, whose, f"{counted} ({_period(budget.period)})", *amounts, _moment(status)
        )
    output.show(table)


def _print_table(split: Sequence[str], rows: Sequence[pb.UsageRow]) -> None:
    table = output.new_table(*split, "unit", "#calls", "#in", "#out", "#cost")
    for row in rows:
        figures = (f"{row.calls:,}", f"{row.input_units:,}", f"{row.output_units:,}")
        cost = _amount(row.cost_micros, row.currency) if row.currency else ""
        output.add_row(table, *_cells(split, row), _unit(row.unit), *figures, cost)
    output.show(table)


def _print_chart(split: Sequence[str], rows: Sequence[pb.UsageRow]) -> None:
    """One bar for each value of the first dimension, for each unit on a scale of its own."""
    if not split:
        return
    sums: dict[int, dict[str, int]] = {}
    for row in rows:
        bars = sums.setdefault(row.unit, {})
        name = _CELLS[split[0]](row)
        bars[name] = bars.get(name, 0) + row.input_units + row.output_units
    for unit, bars in sums.items():
        typer.echo()
        table = output.new_table(split[0], f"{_unit(unit)}s in and out", "#")
        longest = max(bars.values()) or 1
        for name, amount in bars.items():
            output.add_row(table, name, _bar(amount / longest), f"{amount:,}")
        output.show(table)


def _bar(share: float) -> str:
    eighths = max(1, round(share * _BAR_CELLS * 8)) if share else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _print_csv(split: Sequence[str], rows: Sequence[pb.UsageRow]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    figures = ("unit", "calls", "input_units", "output_units", "cost_micros", "currency")
    writer.writerow([*split, *figures])
    for row in rows:
        amounts = (row.calls, row.input_units, row.output_units, row.cost_micros)
        writer.writerow([*_cells(split, row), _unit(row.unit), *amounts, row.currency])


def _cells(split: Sequence[str], row: pb.UsageRow) -> list[str]:
    return [_CELLS[name](row) for name in split]


def _amount(amount: int, currency: str) -> str:
    return f"{amount / 1e6:,.6f} {currency}" if currency else f"{amount:,}"


def _moment(status: pb.LimitStatus | pb.BudgetStatus) -> str:
    if not status.HasField("reset_time"):
        return ""
    return status.reset_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
