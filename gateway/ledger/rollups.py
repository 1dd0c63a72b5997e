"""Roll-ups: what was used, summed by tenant and UTC day, so that a bill needs no single event.

A day is one hash. A field names key, model, family, tier and unit, and which sum it is:
``calls``, ``in``, ``out`` or ``cost``, with tabs between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from penstock.internal.ledger.v1.events_pb2 import CallEvent

_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TenantDay(NamedTuple):
    """Whose hash, and of which day (YYYY-MM-DD, UTC)."""

    day: str
    tenant: str


class Line(NamedTuple):
    """What one set of sums is about."""

    key_id: str
    model: str
    family: int
    tier: int
    unit: int


class Sums(NamedTuple):
    """What was used. Money is in millionths of the price table's currency."""

    calls: int = 0
    input_units: int = 0
    output_units: int = 0
    cost_micros: int = 0

    def __add__(self, other: tuple[object, ...]) -> Sums:
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))  # type: ignore[operator]


_NAMES = ("calls", "in", "out", "cost")


def increments(events: Iterable[CallEvent]) -> dict[TenantDay, Counter[str]]:
    """What the events add to which field of which hash; unbilled events add nothing.

    An event with several units has a line for each; its cost stands with the first.
    """
    days: dict[TenantDay, Counter[str]] = {}
    for event in events:
        cost = event.cost_micros
        for usage in event.usage:
            day = TenantDay(day_name(event.started_us // _DAY_US), event.tenant)
            fields = days.setdefault(day, Counter())
            line = (event.key_id, event.model, event.family, event.tier, usage.unit)
            prefix = "\t".join(map(str, line))
            sums = (1, usage.input_units, usage.output_units, cost)
            for name, amount in zip(_NAMES, sums, strict=True):
                if amount:
                    fields[f"{prefix}\t{name}"] += amount
            cost = 0
    return days


def read_day(fields: Mapping[bytes, bytes]) -> dict[Line, Sums]:
    """A day's hash, as it is stored."""
    lines: dict[Line, list[int]] = {}
    for field, amount in fields.items():
        key_id, model, family, tier, unit, name = field.decode().split("\t")
        line = Line(key_id, model, int(family), int(tier), int(unit))
        lines.setdefault(line, [0] * len(_NAMES))[_NAMES.index(name)] += int(amount)
    return {line: Sums(*sums) for line, sums in lines.items()}


@lru_cache(1024)
def day_name(day: int) -> str:
    """YYYY-MM-DD of a day since 1970."""
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")
