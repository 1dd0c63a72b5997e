"""GetLimits through a real gateway process: everything that bounds the key, and nothing used."""

from __future__ import annotations

import time

import grpc
from redis.asyncio import Redis

from penstock.api.types.v1 import metadata_pb2
from penstock.api.usage.v1 import usage_pb2 as pb
from penstock.api.usage.v1.usage_pb2_grpc import UsageServiceStub
from penstock.service import keys
from penstock.service.api_keys import KeyStore
from penstock.service.quotas import Budget, Limits
from penstock.service.redis import connect
from penstock.service.tenants import TenantRecord, TenantStore
from tests.gateway.test_process import PEPPER, gateway


async def limited_key(redis: Redis) -> tuple[tuple[str, str], ...]:
    await TenantStore(redis).ensure(TenantRecord(id="acme", highest_tier=1))
    record, text = await KeyStore(redis, PEPPER.encode()).create("acme", "test", ["usage:read"])
    limits = Limits(requests_per_minute=2, units_per_minute=100, concurrent_calls=7)
    budgets = (Budget(unit=1, amount=500, period=1), Budget(unit=2, amount=9, period=3))
    record = record.model_copy(update={"limits": limits, "budgets": budgets})
    await redis.set(keys.api_key(record.id), record.model_dump_json())
    await redis.hset(keys.budget(f"key:{record.id}", "2", "total"), mapping={"spent": 4, "r:x": 3})
    return (("authorization", f"Bearer {text}"),)


async def test_limits_and_budgets_are_told_and_asking_uses_none(redis_url: str) -> None:
    redis = connect(redis_url)
    await redis.flushdb()
    metadata = await limited_key(redis)
    async with gateway(redis_url) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = UsageServiceStub(channel)
        for _ in range(5):
            found = await stub.GetLimits(pb.GetLimitsRequest(), metadata=metadata)
    await redis.aclose()
    assert [(one.kind, one.subject, one.limit, one.remaining) for one in found.limits] == [
        (pb.LIMIT_KIND_REQUESTS_PER_MINUTE, pb.LIMIT_SUBJECT_KEY, 2, 2),
        (pb.LIMIT_KIND_UNITS_PER_MINUTE, pb.LIMIT_SUBJECT_KEY, 100, 100),
        (pb.LIMIT_KIND_CONCURRENT_CALLS, pb.LIMIT_SUBJECT_KEY, 7, 7),
    ]
    day, total = found.budgets
    assert day.budget.unit == metadata_pb2.USAGE_UNIT_TOKEN
    assert 0 < day.reset_time.seconds - time.time() <= 86_400
    assert (total.spent, total.reserved, total.HasField("reset_time")) == (4, 3, False)
    assert found.highest_tier == metadata_pb2.SERVICE_TIER_INTERACTIVE
