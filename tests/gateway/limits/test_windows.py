"""The checker of the bound itself: it must see what leaks, and must not see what does not."""

from __future__ import annotations

import random

from tests.gateway.limits.windows import Admitted, excess, excess_between


def test_a_full_bucket_and_its_refill_are_within_the_bound() -> None:
    events = [(0.0, 10), *[(float(second), 1) for second in range(1, 60)]]
    assert excess(events, 10, 1.0) <= 0
    assert excess_between([Admitted(at, at, units) for at, units in events], 10, 1.0) <= 0


def test_one_unit_too_many_is_seen_wherever_it_is() -> None:
    for extra in (0.0, 17.5, 59.0):
        events = [(0.0, 10), *[(float(second), 1) for second in range(1, 60)], (extra, 1)]
        assert excess(events, 10, 1.0) > 0
        assert excess_between([Admitted(at, at, units) for at, units in events], 10, 1.0) > 0


def test_a_call_counts_only_where_it_must_have_been_admitted() -> None:
    assert excess_between([Admitted(0.0, 9.0, 10), Admitted(5.0, 5.5, 1)], 10, 1.0) <= 0
    assert excess_between([Admitted(5.1, 5.2, 10), Admitted(5.0, 5.5, 1)], 10, 1.0) > 0


def test_a_bucket_of_its_own_in_every_gateway_fails() -> None:
    """What most gateways do: a limit of 100 a minute in each of five."""
    chance = random.Random(1)
    levels, events = dict.fromkeys(range(5), 100.0), []
    for step in range(6_000):
        levels = {gateway: min(100.0, level + 100 / 60 / 100) for gateway, level in levels.items()}
        gateway = chance.randrange(5)
        if levels[gateway] >= 1:
            levels[gateway] -= 1
            events.append((step / 100, 1))
    assert excess(events, 100, 100 / 60) > 100
    assert excess_between([Admitted(at, at, units) for at, units in events], 100, 100 / 60) > 100
