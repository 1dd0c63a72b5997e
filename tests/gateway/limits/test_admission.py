"""What a call takes of its limits, what it leaves, and how it is refused."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from gateway.calls import Principal, Quota
from gateway.limits.admission import Admission
from gateway.limits.status import LimitStatus
from gateway.limits.tickets import UNLIMITED
from penstock.errors import ConcurrencyLimited, RateLimited
from penstock.service.quotas import Limits
from tests.gateway.limits.conftest import Admit, call_with, principal, rows


async def admitted(limits: Admission, who: Principal, most: int) -> int:
    """How many of so many calls pass."""
    passed = 0
    for _ in range(most):
        try:
            ticket = await limits.admit(who)
        except RateLimited:
            continue
        ticket.close(call_with(ticket, who))
        passed += 1
    return passed


async def test_a_caller_without_limits_has_no_ticket_of_its_own(admission: Admit) -> None:
    who = Principal("acme", "k", frozenset({"*"}))
    assert await admission().admit(who) is UNLIMITED
    assert UNLIMITED.headers() == ()


async def test_the_first_cluster_of_all_begins_with_full_buckets(admission: Admit) -> None:
    assert await admitted(admission(), principal(requests_per_minute=30), 40) == 30


async def test_a_cluster_that_lost_its_soft_redis_begins_with_empty_ones(
    admission: Admit, redis: Redis
) -> None:
    who = principal(requests_per_minute=600)
    assert await admitted(admission(), who, 1) == 1
    keep = [key async for key in redis.scan_iter("penstock:soft:known")]
    assert keep
    await redis.delete(*[key async for key in redis.scan_iter("penstock:bucket:*")])
    await redis.delete("penstock:soft:birth")
    other = admission()
    with pytest.raises(RateLimited) as caught:
        await other.admit(who)
    # One lifetime of what may have been leased, and the time of one request.
    assert 9.0 < (caught.value.retry_after_seconds or 0.0) < 10.5


async def test_every_quota_counts_and_a_refused_call_uses_nothing_of_the_others(
    admission: Admit, redis: Redis
) -> None:
    tenant = Quota("tenant:acme", Limits(requests_per_minute=100))
    key = Quota("key:k", Limits(requests_per_minute=5))
    who = Principal("acme", "k", frozenset({"*"}), quotas=(tenant, key))
    limits = admission()
    assert await admitted(limits, who, 20) == 5
    await limits.stop()
    left = {
        one.subject: one.remaining for one in (await LimitStatus(redis, redis).left(who)).limits
    }
    assert left == {"tenant:acme": 95, "key:k": 0}


async def test_a_call_larger_than_the_limit_is_refused_for_good(admission: Admit) -> None:
    who = principal(units_per_minute=100)
    limits = admission()
    ticket = await limits.admit(who)
    with pytest.raises(RateLimited, match=r"100 units a minute.*101") as caught:
        await ticket.reserve(rows(101), call_with(ticket, who))
    assert caught.value.retry_after_seconds is None
    await ticket.reserve(rows(100), call_with(ticket, who))


async def test_what_was_reserved_and_not_used_is_there_for_the_next_call(admission: Admit) -> None:
    who = principal(units_per_minute=100)
    limits = admission()
    for used in (10, 20, None, 30):
        ticket = await limits.admit(who)
        await ticket.reserve(rows(40), call_with(ticket, who))
        ticket.close(call_with(ticket, who, used))
    ticket = await limits.admit(who)
    await ticket.reserve(rows(40), call_with(ticket, who))
    with pytest.raises(RateLimited):
        await ticket.reserve(rows(40), call_with(ticket, who))


async def test_a_long_stream_gives_back_after_every_part(admission: Admit) -> None:
    who = principal(units_per_minute=100)
    limits = admission()
    ticket = await limits.admit(who)
    call = call_with(ticket, who)
    for _ in range(40):
        await ticket.reserve(rows(50), call)
        ticket.narrow(rows(50), rows(1), call)
    call.usage = rows(40)
    ticket.close(call)
    ticket = await limits.admit(who)
    await ticket.reserve(rows(60), call)
    with pytest.raises(RateLimited):
        await ticket.reserve(rows(5), call)


async def test_a_models_own_limit_joins_once_the_model_is_known(admission: Admit) -> None:
    models = {"m": Quota("model:acme:m", Limits(requests_per_minute=2))}
    who = principal(models=models, requests_per_minute=100)
    limits = admission()
    for _ in range(2):
        ticket = await limits.admit(who)
        await ticket.join("m")
        await ticket.join("m")
    ticket = await limits.admit(who)
    await ticket.join("another")
    with pytest.raises(RateLimited) as caught:
        await ticket.join("m")
    assert caught.value.metadata["subject"] == "model:acme:m"


async def test_headers_tell_the_tightest_limit(admission: Admit) -> None:
    tenant = Quota("tenant:acme", Limits(requests_per_minute=600, units_per_minute=600))
    key = Quota("key:k", Limits(requests_per_minute=60))
    who = Principal("acme", "k", frozenset({"*"}), quotas=(tenant, key))
    limits = admission()
    for _ in range(10):
        ticket = await limits.admit(who)
        ticket.close(call_with(ticket, who))
    told = dict(ticket.headers())
    ticket = await limits.admit(who)
    told = dict(ticket.headers())
    assert told["x-ratelimit-limit-requests"] == "60"
    assert 49 <= int(told["x-ratelimit-remaining-requests"]) <= 50
    assert 10 <= int(told["x-ratelimit-reset-requests"]) <= 11
    assert told["x-ratelimit-limit-units"] == "600"


async def test_calls_at_a_time_are_never_more_than_allowed_over_three_gateways(
    admission: Admit,
) -> None:
    who = principal(concurrent_calls=5)
    gateways = [admission() for _ in range(3)]
    tickets = []
    refused = 0
    for _ in range(10):
        for limits in gateways:
            try:
                tickets.append(await limits.admit(who))
            except ConcurrencyLimited:
                refused += 1
    assert len(tickets) == 5
    assert refused == 25
    for ticket in tickets:
        ticket.close(call_with(ticket, who))
    last = gateways[-1]
    async with asyncio.timeout(8):
        # The others give theirs back, for they are scarce.
        held = 0
        while held < 5:
            try:
                await last.admit(who)
                held += 1
            except ConcurrencyLimited as error:
                await asyncio.sleep((error.retry_after_seconds or 0) / 5)


async def test_an_abandoned_wait_leaves_no_slot_and_no_unit_behind(admission: Admit) -> None:
    who = principal(concurrent_calls=1, requests_per_minute=1_000)
    limits = admission()
    for _ in range(20):
        waiting = asyncio.create_task(limits.admit(who))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    ticket = await limits.admit(who)
    ticket.close(call_with(ticket, who))


async def test_a_gateway_that_stops_gives_everything_back(admission: Admit, redis: Redis) -> None:
    who = principal(requests_per_minute=1_000, concurrent_calls=100)
    limits = admission()
    ticket = await limits.admit(who)
    ticket.close(call_with(ticket, who))
    await limits.stop()
    bucket = await redis.hgetall("penstock:bucket:requests:key:k")
    assert not [name for name in bucket if b":" in name]
    assert 998.9 < float(bucket[b"level"]) <= 1_000
    left = {one.kind: one.remaining for one in (await LimitStatus(redis, redis).left(who)).limits}
    assert left == {"requests": left["requests"], "calls": 100}


async def test_what_is_left_is_told_without_using_it(admission: Admit, redis: Redis) -> None:
    who = principal(requests_per_minute=50, units_per_minute=500, concurrent_calls=9)
    limits, status = admission(), LimitStatus(redis, redis)
    assert [one.remaining for one in (await status.left(who)).limits] == [50, 500, 9]
    ticket = await limits.admit(who)
    await ticket.reserve(rows(100), call_with(ticket, who))
    ticket.close(call_with(ticket, who, 80))
    await limits.stop()
    requests, units, calls = (await status.left(who)).limits
    assert (requests.remaining, units.remaining) in {(49, 420), (49, 421), (50, 421), (50, 422)}
    assert units.full_at == pytest.approx(time.time() + 80 / 500 * 60, abs=1.5)
    assert calls.remaining <= 9
