"""Budgets over several gateways: never overdrawn, settled on what was used, kept by period."""

from __future__ import annotations

import asyncio
import math

import pytest
from redis.asyncio import Redis

from gateway.limits.admission import Admission
from gateway.limits.budgets import period_of
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import BudgetExhausted
from penstock.service.quotas import Budget
from tests.gateway.limits.conftest import Admit, call_with, principal, rows

ROW = int(metadata_pb2.USAGE_UNIT_ROW)
TOTAL = Budget(unit=ROW, amount=1_000, period=3)
KEY = f"penstock:budget:key:k:{ROW}:total"


class TwoAndAHalf:
    """Two and a half millionths of a euro a row."""

    currency = "EUR"

    def cost_micros(self, family: int, model: str, tier: int, usage: metadata_pb2.Usage) -> int:
        return (usage.input_units * 5 + 1) // 2


async def spent_by(limits: Admission, most: int, reserve: int, use: int) -> int:
    """What so many calls take out of the budget, in the end."""
    who = principal(TOTAL)
    total = 0
    for _ in range(most):
        ticket = await limits.admit(who)
        call = call_with(ticket, who, use)
        try:
            await ticket.reserve(rows(reserve), call)
        except BudgetExhausted as error:
            if error.retry_after_seconds is None:
                break
            ticket.close(call_with(ticket, who))
            await asyncio.sleep(0.01)
            continue
        await asyncio.sleep(0)
        spends = ticket.close(call)
        assert spends == [(KEY, use)]
        total += use
    return total


async def test_four_gateways_never_overdraw_a_budget_and_spend_it_to_the_end(
    admission: Admit, redis: Redis
) -> None:
    spent = await asyncio.gather(*[spent_by(admission(), 300, 7, 3) for _ in range(4)])
    assert sum(spent) <= 1_000
    # What is not spent is less than each gateway's last reservation, and its idle slice.
    assert sum(spent) > 950
    reserved = await redis.hgetall(KEY)
    assert sum(map(int, reserved.values())) <= 1_000


async def test_what_was_shipped_is_no_longer_free(admission: Admit, redis: Redis) -> None:
    await redis.hset(KEY, mapping={"spent": 600, "r:another": 300})
    who, limits = principal(TOTAL), admission()
    ticket = await limits.admit(who)
    await ticket.reserve(rows(80), call_with(ticket, who))
    with pytest.raises(BudgetExhausted) as caught:
        await ticket.reserve(rows(80), call_with(ticket, who))
    assert caught.value.metadata["subject"] == "key:k"
    # Other calls hold the rest in reserve, and may not use it.
    assert caught.value.retry_after_seconds


async def test_a_spent_total_is_refused_for_good(admission: Admit, redis: Redis) -> None:
    await redis.hset(KEY, "spent", 1_000)
    who, limits = principal(TOTAL), admission()
    ticket = await limits.admit(who)
    with pytest.raises(BudgetExhausted, match="1,000 units") as caught:
        await ticket.reserve(rows(1), call_with(ticket, who))
    assert caught.value.retry_after_seconds is None


async def test_an_idle_slice_goes_back_when_a_gateway_stops(admission: Admit, redis: Redis) -> None:
    who, limits = principal(TOTAL), admission()
    ticket = await limits.admit(who)
    await ticket.reserve(rows(50), call_with(ticket, who))
    assert ticket.close(call_with(ticket, who, 20)) == [(KEY, 20)]
    await limits.stop()
    reserved = await redis.hgetall(KEY)
    # The ledger moves these 20 to what is spent when it ships the event.
    assert sum(map(int, reserved.values())) == 20


async def test_a_budget_in_another_unit_is_not_touched(admission: Admit, redis: Redis) -> None:
    who = principal(Budget(unit=int(metadata_pb2.USAGE_UNIT_TOKEN), amount=1, period=3))
    limits = admission()
    ticket = await limits.admit(who)
    await ticket.reserve(rows(100), call_with(ticket, who))
    assert list(ticket.close(call_with(ticket, who, 100))) == []


async def test_a_budget_in_money_pays_what_the_price_table_says(
    admission: Admit, redis: Redis
) -> None:
    who = principal(Budget(currency="EUR", amount=1_000, period=3))
    limits = admission(TwoAndAHalf())
    ticket = await limits.admit(who)
    call = call_with(ticket, who)
    for _ in range(10):
        await ticket.reserve(rows(20), call)
        ticket.narrow(rows(20), rows(1), call)
    call.usage = rows(10)
    assert ticket.spends(call) == [("penstock:budget:key:k:EUR:total", 25)]
    assert ticket.close(call) == [("penstock:budget:key:k:EUR:total", 25)]
    with pytest.raises(BudgetExhausted):
        await ticket.reserve(rows(500), call)


async def test_a_budget_in_a_currency_without_prices_allows_nothing(admission: Admit) -> None:
    who = principal(Budget(currency="USD", amount=1_000, period=3))
    limits = admission()
    ticket = await limits.admit(who)
    with pytest.raises(BudgetExhausted):
        await ticket.reserve(rows(1), call_with(ticket, who))


def test_periods_begin_at_midnight_in_utc() -> None:
    moment = 1_709_251_199.5  # 2024-02-29 23:59:59.5
    day, month, ever = (Budget(unit=ROW, amount=1, period=period) for period in (1, 2, 3))
    assert period_of(day, moment) == ("2024-02-29", 1_709_251_200.0)
    assert period_of(month, moment) == ("2024-02", 1_709_251_200.0)
    assert period_of(month, moment + 1) == ("2024-03", 1_711_929_600.0)
    assert period_of(ever, moment) == ("total", math.inf)
