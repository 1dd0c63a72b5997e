"""Answers questions about usage from the roll-ups: which sums, split how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from redis.asyncio import Redis

from gateway.ledger.rollups import Line, Sums, TenantDay, day_name, read_day
from penstock.api.usage.v1 import usage_pb2 as pb
from penstock.service import keys

_DAYS_AT_ONCE = 200

Group = tuple[str | int, ...]
"""What the rows of one group have in common, in the order asked; the unit is last."""

_VALUES: Mapping[int, Callable[[TenantDay, Line], str | int]] = {
    pb.USAGE_DIMENSION_TENANT: lambda day, line: day.tenant,
    pb.USAGE_DIMENSION_KEY: lambda day, line: line.key_id,
    pb.USAGE_DIMENSION_MODEL: lambda day, line: line.model,
    pb.USAGE_DIMENSION_FAMILY: lambda day, line: line.family,
    pb.USAGE_DIMENSION_TIER: lambda day, line: line.tier,
    pb.USAGE_DIMENSION_DAY: lambda day, line: day.day,
}


@dataclass(frozen=True, slots=True)
class Query:
    """What to sum; an empty set leaves that open."""

    first_day: int
    """Days since 1970."""
    last_day: int
    tenants: frozenset[str]
    """Whose; empty means everybody's."""
    keys: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    families: frozenset[int] = frozenset()
    tiers: frozenset[int] = frozenset()
    group_by: tuple[int, ...] = ()
    """UsageDimensions."""

    def wants(self, line: Line) -> bool:
        """Whether the sums count."""
        return (
            (not self.keys or line.key_id in self.keys)
            and (not self.models or line.model in self.models)
            and (not self.families or line.family in self.families)
            and (not self.tiers or line.tier in self.tiers)
        )


class UsageReader:
    """Reads the control Redis; its methods raise RedisError."""

    def __init__(self, control: Redis) -> None:
        self._control: Any = control

    async def groups(self, query: Query) -> dict[Group, Sums]:
        """The groups that have any usage, in no order."""
        found: dict[Group, Sums] = {}
        days = iter(await self._days(query))
        while some := list(islice(days, _DAYS_AT_ONCE)):
            pipe = self._control.pipeline(transaction=False)
            for day in some:
                pipe.hgetall(keys.usage_day(day.tenant, day.day))
            for day, fields in zip(some, await pipe.execute(), strict=True):
                for line, sums in read_day(fields).items():
                    if query.wants(line):
                        values = [_VALUES[dimension](day, line) for dimension in query.group_by]
                        group = (*values, line.unit)
                        found[group] = found.get(group, Sums()) + sums
        return found

    async def sealed_until(self) -> float | None:
        """Unix seconds; None while nothing is sealed."""
        stored = await self._control.hget(keys.LEDGER_HEADS, "sealed_until")
        return None if stored is None else float(stored)

    async def _days(self, query: Query) -> Sequence[TenantDay]:
        names = [day_name(day) for day in range(query.first_day, query.last_day + 1)]
        if query.tenants:
            return [TenantDay(day, tenant) for tenant in sorted(query.tenants) for day in names]
        members = await self._control.zrangebylex(
            keys.USAGE_DAYS, f"[{names[0]} ", f"({names[-1]}!"
        )
        return list(_split(members))


def _split(members: Sequence[bytes]) -> Iterator[TenantDay]:
    for member in members:
        day, _, tenant = member.decode().partition(" ")
        yield TenantDay(day, tenant)
