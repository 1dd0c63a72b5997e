"""What the control Redis has of the ledger: marks, outbox, roll-ups and the spends of budgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis

from gateway.ledger.rollups import increments
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service import keys
from penstock.service.ledger.outbox import encode_events

_SCRIPTS = Path(__file__).parents[1] / "scripts"
_BUDGET_SECONDS = 40 * 86_400
"""A budget that a spend has to make anew, because its period ended long ago, lives this long."""


class Taken(NamedTuple):
    """What became of a batch."""

    taken: bool
    """False: it was not the next one, and nothing has changed."""
    mark: int
    """The source's last sequence in Redis."""


class LedgerStore:
    """The ledger's part of the control Redis. Every method raises RedisError."""

    def __init__(self, control: Redis) -> None:
        self._control = control
        self._ship = control.register_script((_SCRIPTS / "ship_events.lua").read_text())
        self._close = control.register_script((_SCRIPTS / "close_source.lua").read_text())

    async def mark(self, source: str) -> int:
        """The last sequence that Redis has of the source."""
        return int(await self._control.hget(keys.LEDGER_MARKS, source) or 0)

    async def sealed(self, source: str) -> int:
        """The last sequence of the source that is in a sealed segment."""
        return int(await self._control.hget(keys.LEDGER_SEALED, source) or 0)

    async def forget(self, source: str) -> None:
        """Drops the mark of a source that is closed, sealed, and has no files any more."""
        await self._control.hdel(keys.LEDGER_MARKS, source)

    async def close(self, source: str) -> None:
        """Frees what a dead source holds of budgets; everything it spent must be shipped."""
        await self._close(keys=[keys.budget_holdings(source)], args=[source])

    async def ship(self, source: str, events: Sequence[CallEvent]) -> Taken:
        """Takes in consecutive events of a source, all or nothing, and only if they come next.

        So a batch that is sent again, because its answer was lost, changes nothing.
        """
        first, last = events[0].sequence, events[-1].sequence
        places: dict[str, int] = {}

        def place(key: str) -> int:
            return places.setdefault(key, len(places) + 1)

        days = increments(events)
        added: list[str | int] = []
        for day, fields in days.items():
            key = place(keys.usage_day(day.tenant, day.day))
            for field, amount in fields.items():
                added += (key, field, amount)
        spent: list[int] = []
        for budget, amount in _spends(events).items():
            seconds = 0 if budget.endswith(":total") else _BUDGET_SECONDS
            spent += (place(budget), amount, seconds)
        names = [f"{day.day} {day.tenant}" for day in days]
        arguments: list[Any] = [source, first, last, encode_events(events)]
        arguments += [len(names), *names]
        arguments += [len(added) // 3, *added]
        arguments += [len(spent) // 3, *spent]
        taken, mark = await self._ship(
            keys=[keys.LEDGER_MARKS, keys.LEDGER_OUTBOX, keys.USAGE_DAYS, *places],
            args=arguments,
        )
        return Taken(bool(taken), int(mark))


def _spends(events: Sequence[CallEvent]) -> Counter[str]:
    spent: Counter[str] = Counter()
    for event in events:
        for spend in event.spends:
            spent[spend.budget] += spend.amount
    return spent
