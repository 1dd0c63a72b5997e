"""Gateways' admissions side by side in one process, over one real Redis."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from gateway.calls import Call, Principal, Quota
from gateway.limits.admission import Admission
from gateway.limits.tickets import Prices, Ticket
from penstock.api.types.v1 import metadata_pb2
from penstock.service.quotas import Budget, Limits
from penstock.service.redis import connect

Admit = Callable[..., Admission]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_seconds=1.0)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
async def admission(redis: Redis) -> AsyncIterator[Admit]:
    """Makes one more gateway's admission, started."""
    async with AsyncExitStack() as stack:

        def make(prices: Prices | None = None) -> Admission:
            made = Admission(redis, redis, secrets.token_hex(16), prices)
            made.start()
            stack.push_async_callback(made.stop)
            return made

        yield make


def principal(*budgets: Budget, models: dict[str, Quota] | None = None, **limits: int) -> Principal:
    """A key with these limits; two calls of this make the same key."""
    quota = Quota("key:k", Limits.model_validate(limits), budgets)
    return Principal("acme", "k", frozenset({"*"}), quotas=(quota,), model_quotas=models or {})


def call_with(ticket: Ticket, who: Principal, used: int | None = None) -> Call:
    """A call that has used so many rows."""
    now = time.monotonic()
    method = "/penstock.api.inference.v1.InferenceService/Predict"
    call = Call("r", method, who, now, now + 10, model="m", tier=2, ticket=ticket)
    call.usage = None if used is None else rows(used)
    return call


def rows(count: int) -> metadata_pb2.Usage:
    return metadata_pb2.Usage(input_units=count, unit=metadata_pb2.USAGE_UNIT_ROW)
