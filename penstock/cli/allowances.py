"""What a tenant or a key is allowed, as options say it and as tables show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from penstock.api.types.v1 import limits_pb2, metadata_pb2

Limit = Annotated[
    list[str] | None,
    typer.Option("--limit", help="NAME=NUMBER, such as requests_per_minute=600; repeatable."),
]
Budget = Annotated[
    list[str] | None,
    typer.Option("--budget", help="token=1000000/day or EUR=50/month; repeatable."),
]
Region = Annotated[list[str] | None, typer.Option("--region", help="Repeatable.")]
Label = Annotated[list[str] | None, typer.Option("--label", help="NAME=VALUE; repeatable.")]
Tier = Annotated[
    str | None,
    typer.Option("--highest-tier", help="interactive, standard, batch or best_effort."),
]
Clear = Annotated[list[str] | None, typer.Option("--clear", help="A field to empty; repeatable.")]
Etag = Annotated[str, typer.Option(help="Change it only if this still fits.")]
IdempotencyKey = Annotated[str, typer.Option(help="Makes a repeated call safe for 24 hours.")]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_MILLIONTHS = 1_000_000
_UNITS = {
    name.removeprefix("USAGE_UNIT_").lower(): number
    for name, number in metadata_pb2.UsageUnit.items()
    if number
}
_PERIODS = {
    name.removeprefix("BUDGET_PERIOD_").lower(): number
    for name, number in limits_pb2.BudgetPeriod.items()
    if number
}
_TIERS = {
    name.removeprefix("SERVICE_TIER_").lower(): number
    for name, number in metadata_pb2.ServiceTier.items()
    if number
}
_N = TypeVar("_N")


def limits_of(texts: Iterable[str]) -> limits_pb2.Limits:
    """``NAME=NUMBER`` each. Raises ValueError."""
    limits = limits_pb2.Limits()
    for name, number in pairs(texts):
        name = name.replace("-", "_")
        _known(name, limits_pb2.Limits.DESCRIPTOR.fields_by_name, "limit")
        setattr(limits, name, _count(number))
    return limits


def budgets_of(texts: Iterable[str]) -> list[limits_pb2.Budget]:
    """``UNIT=AMOUNT/PERIOD`` each, or a currency's code in the unit's place. Raises ValueError."""
    return [_budget(name, rest) for name, rest in pairs(texts)]


def _budget(name: str, rest: str) -> limits_pb2.Budget:
    amount, _, period = rest.partition("/")
    budget = limits_pb2.Budget(period=_known(period, _PERIODS, "period"))
    if name.isupper():
        try:
            budget.amount = int(Decimal(amount) * _MILLIONTHS)
        except (InvalidOperation, ValueError):
            raise ValueError(f"{amount!r} is not an amount of money") from None
        budget.currency = name
    else:
        budget.unit, budget.amount = _known(name, _UNITS, "unit"), _count(amount)
    return budget


def tier_of(name: str | None) -> metadata_pb2.ServiceTier.ValueType:
    """The tier of that name; unspecified where none is given. Raises ValueError."""
    number = _known(name.replace("-", "_"), _TIERS, "tier") if name else 0
    return metadata_pb2.ServiceTier.ValueType(number)


def seconds_of(text: str) -> float:
    """``90s``, ``15m``, ``24h`` or ``30d`` in seconds. Raises ValueError."""
    try:
        return float(text[:-1]) * _SECONDS[text[-1:]]
    except (KeyError, ValueError):
        raise ValueError(f"{text!r} is not a time such as 90s, 15m, 24h or 30d") from None


def pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    """``NAME=VALUE`` each. Raises ValueError."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"{text!r} is not NAME=VALUE")
        found.append((name, value))
    return found


def limits_text(limits: limits_pb2.Limits) -> str:
    """The limits on a line."""
    return ", ".join(f"{field.name} {value:,}" for field, value in limits.ListFields())


def budgets_text(budgets: Iterable[limits_pb2.Budget]) -> str:
    """The budgets on a line."""
    return ", ".join(map(_budget_text, budgets))


def _budget_text(budget: limits_pb2.Budget) -> str:
    period = _name_of(budget.period, _PERIODS)
    if budget.currency:
        return f"{budget.amount / _MILLIONTHS:,.2f} {budget.currency} a {period}"
    return f"{budget.amount:,} {_name_of(budget.unit, _UNITS)}s a {period}"


def tier_text(tier: int) -> str:
    """The tier's name."""
    return _name_of(tier, _TIERS)


def time_text(message: Any, field: str) -> str:
    """A time of the message, in UTC; empty when it is absent."""
    if not message.HasField(field):
        return ""
    at: Timestamp = getattr(message, field)
    return at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def _known(name: str, names: Mapping[str, _N], kind: str) -> _N:
    if name not in names:
        raise ValueError(f"{name!r} is not a {kind}: one of {', '.join(names)}")
    return names[name]


def _name_of(number: int, names: Mapping[str, int]) -> str:
    return next((name for name, known in names.items() if known == number), "")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)
