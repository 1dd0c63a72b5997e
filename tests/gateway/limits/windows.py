"""Whether what was admitted keeps within a rate, in every window of time there is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Admitted(NamedTuple):
    """A call that was let in at some moment between two others, in seconds."""

    sent: float
    answered: float
    units: int


def excess(events: Iterable[tuple[float, int]], capacity: float, rate: float) -> float:
    """By how much the worst window [t, t + s] holds more than capacity + rate * s.

    ``events`` are (moment, units). Negative or 0 when the bound holds everywhere.
    """
    fullest = worst = 0.0
    last = None
    for moment, units in sorted(events):
        if last is not None:
            fullest = max(0.0, fullest - rate * (moment - last))
        fullest += units
        worst = max(worst, fullest)
        last = moment
    return worst - capacity


def excess_between(calls: Sequence[Admitted], capacity: float, rate: float) -> float:
    """As ``excess``, of calls whose moment is not known: only those that were sent and answered
    within a window count as admitted in it."""
    by_end = sorted(calls, key=lambda call: call.answered)
    worst = -capacity
    for begin in sorted(call.sent for call in calls):
        total = 0
        first = bisect_left(by_end, begin, key=lambda call: call.answered)
        for call in by_end[first:]:
            if call.sent >= begin:
                total += call.units
                worst = max(worst, total - capacity - rate * (call.answered - begin))
    return worst
