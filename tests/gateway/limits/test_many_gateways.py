"""What several gateways admit together, while everything works and while it does not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from penstock.service.quotas import Budget, Limits
from tests.gateway.limits.gateways import Load, gateways
from tests.gateway.limits.windows import excess_between

LIMIT = 100
RATE = LIMIT / 60
ROWS, TOTAL = 2, 3


@pytest.mark.timeout(120)
async def test_five_gateways_admit_what_the_limit_allows_no_more_and_no_less(
    tmp_path: Path,
) -> None:
    seconds, callers, load = 60.0, 200, Load()
    async with gateways(tmp_path, 5) as running:
        key = await running.key(Limits(units_per_minute=LIMIT))
        until = time.monotonic() + seconds
        await asyncio.gather(*[running.call_on(key, load, until) for _ in range(callers)])
    assert excess_between(load.admitted, LIMIT, RATE) <= 0
    assert load.units() >= 0.95 * (LIMIT + RATE * seconds), load.refused


@pytest.mark.timeout(90)
async def test_nothing_leaks_when_a_gateway_is_killed_and_redis_hangs_and_is_emptied(
    tmp_path: Path,
) -> None:
    rated, together, paid = Load(), Load(), Load()
    async with gateways(tmp_path, 3) as running:
        rate_key = await running.key(Limits(units_per_minute=LIMIT))
        slots_key = await running.key(Limits(concurrent_calls=6))
        budget_key = await running.key(budgets=(Budget(unit=ROWS, amount=200, period=TOTAL),))
        began = time.monotonic()
        until = began + 26.0
        callers = [
            *[running.call_on(rate_key, rated, until) for _ in range(40)],
            *[running.call_on(slots_key, together, until, "slow", 1) for _ in range(20)],
            *[running.call_on(budget_key, paid, until) for _ in range(10)],
        ]
        load = asyncio.gather(*callers)
        await asyncio.sleep(3.0)
        running.kill_one()
        await asyncio.sleep(2.0)
        await running.soft.flushdb()
        await asyncio.sleep(2.0)
        async with running.stopped_redis():
            await asyncio.sleep(4.0)
        await load
        most_at_once = running.replica.most
    assert excess_between(rated.admitted, LIMIT, RATE) <= 0
    # Once the lost leases are over, there is something again.
    assert [call for call in rated.admitted if call.sent > began + 18.0]
    assert most_at_once <= 6
    # The killed gateway's slots have come free.
    late = [call for call in together.admitted if call.sent > began + 20.0]
    assert max(_at_once(late, call.answered) for call in late) >= 5
    assert 150 <= paid.units() <= 200


def _at_once(calls: list, moment: float) -> int:  # type: ignore[type-arg]
    return sum(1 for call in calls if call.sent < moment <= call.answered)
