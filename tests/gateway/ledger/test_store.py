"""Taking in batches: applied twice is applied once, and nothing is ever skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.ledger.rollups import increments
from gateway.ledger.store import LedgerStore, Taken
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service import keys
from tests.gateway.ledger.records import event
from tests.gateway.ledger.seen import billed, rolled_up, shipped, totals

BUDGETS = ("", keys.budget("tenant:acme", "1", "2025-11-25"), keys.budget("key:a", "EUR", "total"))


def numbered(events: list[CallEvent], first: int) -> list[CallEvent]:
    for sequence, one in enumerate(events, first):
        one.sequence = sequence
    return events


async def test_a_batch_is_taken_in_once_however_often_it_comes(
    store: LedgerStore, control: Redis
) -> None:
    batch = numbered([event(tokens=5, budget=BUDGETS[1]), event(tokens=7)], 1)
    assert await store.ship("a", batch) == Taken(True, 2)
    for _ in range(3):
        assert await store.ship("a", batch) == Taken(False, 2)
    assert await store.mark("a") == 2
    assert billed((await shipped(control))["a"]) == billed(batch) == await totals(control)
    assert await control.hget(BUDGETS[1], "spent") == b"5"


async def test_a_gap_and_an_overlap_change_nothing(store: LedgerStore, control: Redis) -> None:
    await store.ship("a", numbered([event(), event()], 1))
    before = await totals(control)
    assert await store.ship("a", numbered([event()], 4)) == Taken(False, 2)
    assert await store.ship("a", numbered([event(), event()], 2)) == Taken(False, 2)
    assert await totals(control) == before


async def test_unbilled_events_are_shipped_and_add_to_no_sum(
    store: LedgerStore, control: Redis
) -> None:
    await store.ship("a", numbered([event(tokens=0), event(tokens=0, tenant="")], 1))
    assert len((await shipped(control))["a"]) == 2
    assert await rolled_up(control) == {}


async def test_sums_are_split_by_tenant_and_day(store: LedgerStore, control: Redis) -> None:
    events = [event(tokens=1), event(tokens=2, days=1), event(tokens=4, tenant="globex")]
    await store.ship("a", numbered(events, 1))
    found = await rolled_up(control)
    assert {key: sum(s.output_units for s in lines.values()) for key, lines in found.items()} == {
        ("2025-11-25", "acme"): 1,
        ("2025-11-26", "acme"): 2,
        ("2025-11-25", "globex"): 4,
    }


async def test_what_was_reserved_becomes_what_was_spent(store: LedgerStore, control: Redis) -> None:
    budget = BUDGETS[1]
    await control.hset(budget, mapping={"spent": 100, "r:a": 8, "r:b": 50})
    await store.ship("a", numbered([event(tokens=5, budget=budget)], 1))
    assert await control.hgetall(budget) == {b"spent": b"105", b"r:a": b"3", b"r:b": b"50"}
    await store.ship("a", numbered([event(tokens=5, budget=budget)], 2))
    assert await control.hgetall(budget) == {b"spent": b"110", b"r:b": b"50"}


async def test_a_budget_whose_period_is_long_over_does_not_stay_for_ever(
    store: LedgerStore, control: Redis
) -> None:
    spent = [event(budget=BUDGETS[1]), event(budget=BUDGETS[2])]
    await store.ship("a", numbered(spent, 1))
    assert await control.ttl(BUDGETS[1]) > 0
    assert await control.ttl(BUDGETS[2]) == -1


async def test_closing_a_source_frees_what_it_reserved(store: LedgerStore, control: Redis) -> None:
    for budget in BUDGETS[1:]:
        await control.hset(budget, mapping={"spent": 1, "r:a": 8, "r:b": 5})
        await control.sadd(keys.budget_holdings("a"), budget)
    for _ in range(2):
        await store.close("a")
    for budget in BUDGETS[1:]:
        assert await control.hgetall(budget) == {b"spent": b"1", b"r:b": b"5"}
    assert await control.exists(keys.budget_holdings("a")) == 0


@dataclass
class Model:
    """What Redis should hold."""

    marks: dict[str, int] = field(default_factory=dict)
    events: list[CallEvent] = field(default_factory=list)
    spent: dict[str, int] = field(default_factory=dict)
    held: dict[tuple[str, str], int] = field(default_factory=dict)

    def ship(self, source: str, batch: list[CallEvent]) -> Taken:
        mark = self.marks.get(source, 0)
        if batch[0].sequence != mark + 1:
            return Taken(False, mark)
        for one in batch:
            for spend in one.spends:
                self.spent[spend.budget] = self.spent.get(spend.budget, 0) + spend.amount
                held = self.held.get((spend.budget, source), 0)
                self.held[spend.budget, source] = max(0, held - spend.amount)
        self.events += batch
        self.marks[source] = batch[-1].sequence
        return Taken(True, self.marks[source])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(-3, 2),
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from(BUDGETS)), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, reserved=st.integers(0, 30))
async def test_any_order_of_batches_gives_what_the_model_gives(
    store: LedgerStore,
    control: Redis,
    steps: list[tuple[str, int, list[tuple[int, str]]]],
    reserved: int,
) -> None:
    await control.flushdb()
    model = Model()
    for budget in BUDGETS[1:]:
        if reserved:
            await control.hset(budget, "r:a", str(reserved))
            model.held[budget, "a"] = reserved
    for source, shift, made in steps:
        first = max(1, model.marks.get(source, 0) + 1 + shift)
        batch = numbered([event(tokens=n, budget=b if n else "") for n, b in made], first)
        assert await store.ship(source, batch) == model.ship(source, batch)
        assert not (await store.ship(source, batch)).taken
    found = await shipped(control)
    assert sum(map(len, found.values())) == len(model.events)
    assert await totals(control) == billed(model.events)
    expected = increments(model.events)
    for day, fields in expected.items():
        sums: Any = await control.hgetall(keys.usage_day(day.tenant, day.day))
        assert {k.decode(): int(v) for k, v in sums.items()} == dict(fields)
    for budget in BUDGETS[1:]:
        stored: Any = await control.hgetall(budget)
        assert int(stored.get(b"spent", 0)) == model.spent.get(budget, 0)
        for source in ("a", "b"):
            held = int(stored.get(f"r:{source}".encode(), 0))
            assert held == model.held.get((budget, source), 0)
