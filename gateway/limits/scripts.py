"""The Redis scripts of the limits, each as one typed question and the answer to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gateway import keys
from penstock.service import keys as shared

_FOLDER = Path(__file__).parents[1] / "scripts"


class Script:
    """A script by name, with what goes before it."""

    def __init__(self, *names: str) -> None:
        self.text = "\n".join((_FOLDER / f"{name}.lua").read_text() for name in names)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        """How Redis names it (EVALSHA)."""


LEASE_UNITS = Script("redis_clock", "soft_birth", "lease_units")
HOLD_SLOTS = Script("redis_clock", "soft_birth", "hold_slots")
DECLARE_BIRTH = Script("redis_clock", "declare_birth")
LEASE_BUDGET = Script("lease_budget")

UNBORN = -1
"""In place of what is granted: the birth of the soft Redis has to be declared first."""
OUTDATED = -2
"""In place of what is granted: a newer question of the same source has been answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """One run of a script."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[str | int | float, ...]


class Report(NamedTuple):
    """What became of a piece that was leased before."""

    piece: int
    unspent: int
    """Still to be used, what open calls have reserved included."""
    given_back: int
    """In all, so far; ALL for a piece whose answer was lost."""


ALL = -1


class Wish(NamedTuple):
    """How much is asked for."""

    least: int = 0
    """With less, no call that waits is helped."""
    needed: int = 0
    """All calls that wait, together."""
    wanted: int = 0
    """With what is taken in advance."""


class UnitsAnswer(NamedTuple):
    """An answer of the script lease_units."""

    granted: int
    level: float
    """What is left in the bucket."""
    unspent: int
    """What all gateways may still use."""


def lease_units(
    bucket: tuple[str, str],
    capacity: int,
    piece: tuple[str, int],
    ttl_seconds: float,
    wish: Wish,
    reports: Iterable[Report],
) -> Question:
    """Leases units of the bucket (kind, subject), which refills in a minute, as the piece (source,
    number), and reports earlier pieces of the source."""
    return Question(
        LEASE_UNITS,
        (keys.bucket(*bucket), keys.SOFT_BIRTH),
        (
            *(capacity, repr(capacity / 60.0), ttl_seconds, *piece, *wish),
            *(part for report in reports for part in report),
        ),
    )


def read_units(answer: Any) -> UnitsAnswer:
    """Reads the answer to ``lease_units``."""
    granted, level, unspent = answer
    return UnitsAnswer(int(granted), float(level), int(unspent))


class SlotsAnswer(NamedTuple):
    """An answer of the script hold_slots."""

    held: int
    free: int
    """What nobody holds."""


def hold_slots(
    subject: str,
    limit: int,
    holding: tuple[str, int],
    ttl_seconds: float,
    kept: int,
    wish: Wish,
) -> Question:
    """Sets what the source holds, as its so-maniest question (source, sequence), to ``kept`` and
    more as wished: all of it in ``needed`` and ``wanted``."""
    return Question(
        HOLD_SLOTS,
        (keys.slots(subject), keys.SOFT_BIRTH),
        (limit, ttl_seconds, *holding, kept, wish.needed, wish.wanted),
    )


def read_slots(answer: Any) -> SlotsAnswer:
    """Reads the answer to ``hold_slots``."""
    return SlotsAnswer(*map(int, answer))


class BudgetAnswer(NamedTuple):
    """An answer of the script lease_budget."""

    granted: int
    spent: int
    reserved: int
    """By all gateways, before what is granted if this is a repeated answer."""


def lease_budget(
    budget: str, amount: int, holding: tuple[str, int], back: int, wish: Wish, expires_at: int
) -> Question:
    """Reserves a slice of the budget (a Redis key), as the so-maniest question (source, sequence),
    and gives ``back`` what is not needed. ``expires_at`` is in Unix seconds; 0 means never."""
    source, sequence = holding
    return Question(
        LEASE_BUDGET,
        (budget, shared.budget_holdings(source), keys.budget_answers(source)),
        (amount, source, sequence, back, *wish, expires_at),
    )


def read_budget(answer: Any) -> BudgetAnswer:
    """Reads the answer to ``lease_budget``."""
    return BudgetAnswer(*map(int, answer))


def declare_birth(nothing_lost: bool) -> Question:
    """Says since when the soft Redis knows every lease: always, or from now on."""
    return Question(DECLARE_BIRTH, (keys.SOFT_BIRTH,), (int(nothing_lost),))
