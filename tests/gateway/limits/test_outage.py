"""A Redis that hangs or is away: what is leased goes on, nothing waits, nothing leaks."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.calls import Principal
from gateway.limits.admission import Admission
from penstock.errors import DependencyUnavailable, RateLimited
from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer
from penstock.service.quotas import Budget
from penstock.service.redis import connect
from tests.gateway.limits.conftest import call_with, principal, rows

ROW = 2


class Outage:
    """A Redis of its own, a gateway's admission over it, and a switch."""

    def __init__(self, server: RedisServer, admission: Admission) -> None:
        self.server = server
        self.process: Any = None
        self.admission = admission

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.server.command(), stdout=asyncio.subprocess.DEVNULL
        )
        assert await asyncio.to_thread(self.server.wait)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@pytest.fixture
async def outage(tmp_path: Path) -> AsyncIterator[Outage]:
    server = RedisServer(tmp_path, free_port())
    redis = connect(server.url(), timeout_seconds=1.0)
    running = Outage(server, Admission(redis, redis, "source", None))
    await running.start()
    running.admission.start()
    yield running
    await running.admission.stop()
    await redis.aclose()
    running.process.terminate()
    await running.process.wait()


async def test_calls_under_a_lease_pass_while_redis_hangs_and_no_call_waits(
    outage: Outage,
) -> None:
    who = principal(requests_per_minute=60_000, units_per_minute=600_000)
    stranger = other(principal(requests_per_minute=600))
    limits = outage.admission
    ticket = await limits.admit(who)
    await ticket.reserve(rows(1), call_with(ticket, who))
    ticket.close(call_with(ticket, who, 1))
    with outage.hanging():
        took = []
        for _ in range(200):
            began = time.perf_counter()
            ticket = await limits.admit(who)
            await ticket.reserve(rows(1), call_with(ticket, who))
            ticket.close(call_with(ticket, who, 1))
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0)
        assert max(took) < 0.1
        # The first that needs an answer waits in vain, once; then the breaker is open.
        with pytest.raises(DependencyUnavailable) as caught:
            await limits.admit(stranger)
        assert caught.value.retry_after_seconds
        began = time.perf_counter()
        for _ in range(50):
            with pytest.raises(DependencyUnavailable):
                await limits.admit(stranger)
        assert time.perf_counter() - began < 0.25
    async with asyncio.timeout(10):
        while True:
            try:
                await limits.admit(stranger)
                break
            except (DependencyUnavailable, RateLimited):
                await asyncio.sleep(0.05)


async def test_spending_fails_closed_while_redis_is_away_but_a_held_slice_is_spent(
    outage: Outage,
) -> None:
    who = principal(Budget(unit=ROW, amount=1_000, period=3))
    limits = outage.admission
    ticket = await limits.admit(who)
    await ticket.reserve(rows(1), call_with(ticket, who))
    with outage.hanging():
        spent = 0
        with suppress(DependencyUnavailable):
            while spent < 1_000:
                await ticket.reserve(rows(1), call_with(ticket, who))
                spent += 1
        assert 1 <= spent < 1_000
    call = call_with(ticket, who, spent + 1)
    assert list(ticket.close(call)) == [("penstock:budget:key:k:2:total", spent + 1)]
    total = spent + 1
    async with asyncio.timeout(10):
        while total < 1_000:
            ticket = await limits.admit(who)
            try:
                await ticket.reserve(rows(1), call_with(ticket, who))
            except DependencyUnavailable:
                await asyncio.sleep(0.05)
                continue
            total += 1
            ticket.close(call_with(ticket, who, 1))


async def test_a_redis_that_was_started_again_begins_with_empty_buckets(outage: Outage) -> None:
    """It knows no scripts any more, and what it knows of leases may be old."""
    who = principal(requests_per_minute=60_000)
    limits = outage.admission
    ticket = await limits.admit(who)
    ticket.close(call_with(ticket, who))
    outage.process.kill()
    await outage.process.wait()
    await outage.start()
    refused: Exception | None = None
    async with asyncio.timeout(15):
        while not isinstance(refused, RateLimited):
            try:
                ticket = await limits.admit(who)
                ticket.close(call_with(ticket, who))
                await asyncio.sleep(0)
            except (DependencyUnavailable, RateLimited) as error:
                refused = error
                await asyncio.sleep(0.02)
    assert 5.0 < (refused.retry_after_seconds or 0.0) < 10.5


def other(who: Principal) -> Principal:
    """The same limits, for another key."""
    quota = replace(who.quotas[0], subject="key:other")
    return replace(who, key_id="other", quotas=(quota,))
