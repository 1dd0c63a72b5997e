"""What the control Redis has of the ledger, as a test compares it."""

from __future__ import annotations

from typing import Any

from gateway.ledger.rollups import Line, Sums, read_day
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service import keys
from penstock.service.ledger.outbox import batch_of


async def shipped(control: Any) -> dict[str, list[CallEvent]]:
    """The outbox's events by source, each source's from 1 without gaps."""
    found: dict[str, list[CallEvent]] = {}
    for _, fields in await control.xrange(keys.LEDGER_OUTBOX):
        batch = batch_of(fields)
        events = batch.decoded()
        assert [e.sequence for e in events] == list(range(batch.first, batch.last + 1))
        found.setdefault(batch.source, []).extend(events)
    for events in found.values():
        assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    ids = [event.id for events in found.values() for event in events]
    assert len(set(ids)) == len(ids), "an event appears twice"
    return found


async def rolled_up(control: Any) -> dict[tuple[str, str], dict[Line, Sums]]:
    """All sums by (day, tenant)."""
    found = {}
    for member in await control.zrange(keys.USAGE_DAYS, 0, -1):
        day, tenant = member.decode().split(" ", 1)
        found[day, tenant] = read_day(await control.hgetall(keys.usage_day(tenant, day)))
    return found


async def totals(control: Any) -> Sums:
    """All roll-ups together."""
    sums = Sums()
    for lines in (await rolled_up(control)).values():
        for line in lines.values():
            sums += line
    return sums


def billed(events: list[CallEvent]) -> Sums:
    """What the events say themselves."""
    sums = Sums()
    for event in events:
        for usage in event.usage:
            sums += Sums(1, usage.input_units, usage.output_units)
        sums += Sums(0, 0, 0, event.cost_micros)
    return sums
