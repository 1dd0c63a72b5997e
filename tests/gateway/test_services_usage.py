"""QueryUsage: whole days, split and filtered as asked, and nobody sees another tenant's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.calls import Call, Principal
from gateway.ledger.store import LedgerStore
from gateway.ledger.usage import UsageReader
from gateway.limits.status import LimitStatus
from gateway.services.usage import UsageService
from penstock.api.types.v1 import metadata_pb2 as types
from penstock.api.usage.v1 import usage_pb2 as pb
from penstock.errors import DependencyUnavailable, InvalidArgument
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service import keys
from penstock.service.redis import connect

DAY = 86_400
TODAY = int(time.time()) // DAY
TENANT, KEY, MODEL, FAMILY, TIER, DAY_OF = (
    pb.USAGE_DIMENSION_TENANT,
    pb.USAGE_DIMENSION_KEY,
    pb.USAGE_DIMENSION_MODEL,
    pb.USAGE_DIMENSION_FAMILY,
    pb.USAGE_DIMENSION_TIER,
    pb.USAGE_DIMENSION_DAY,
)


@pytest.fixture
async def control(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def service(control: Redis) -> UsageService:
    return UsageService(UsageReader(control), "EUR", LimitStatus(control, control))


def call_by(tenant: str = "acme", *scopes: str) -> Call:
    now = time.monotonic()
    return Call("r", "/m", Principal(tenant, "key", frozenset(scopes)), now, now + 10)


OWN, ADMIN = call_by("acme", "usage:read"), call_by("acme", "usage:read", "admin:read")


def used(
    amount: int,
    *,
    tenant: str = "acme",
    key: str = "k1",
    model: str = "story",
    day: int = TODAY,
    unit: types.UsageUnit.ValueType = types.USAGE_UNIT_TOKEN,
    tier: types.ServiceTier.ValueType = types.SERVICE_TIER_STANDARD,
    family: types.ApiFamily.ValueType = types.API_FAMILY_INFERENCE,
) -> CallEvent:
    event = CallEvent(
        tenant=tenant,
        key_id=key,
        model=model,
        started_us=day * DAY * 1_000_000 + 5,
        family=family,
        tier=tier,
        cost_micros=3 * amount,
    )
    event.usage.add(input_units=amount, output_units=2 * amount, unit=unit)
    return event


async def record(control: Redis, *events: CallEvent) -> None:
    for sequence, event in enumerate(events, 1):
        event.sequence = sequence
    assert (await LedgerStore(control).ship("s", events)).taken


def query(*group_by: Any, **fields: Any) -> pb.QueryUsageRequest:
    return pb.QueryUsageRequest(group_by=group_by, **fields)


def unknown(**numbers: Any) -> pb.UsageFilter:
    """With numbers of enums that this version does not know."""
    return pb.UsageFilter(**numbers)


def days_ago(days: int) -> Any:
    request = pb.QueryUsageRequest()
    request.start_time.seconds = (TODAY - days) * DAY + 77
    return request.start_time


async def test_without_a_split_each_unit_has_one_row(service: UsageService, control: Redis) -> None:
    await record(control, used(1), used(2, model="other"), used(4, unit=types.USAGE_UNIT_IMAGE))
    rows = (await service.QueryUsage(query(), OWN)).rows
    assert [(r.unit, r.calls, r.input_units, r.output_units, r.cost_micros) for r in rows] == [
        (types.USAGE_UNIT_TOKEN, 2, 3, 6, 9),
        (types.USAGE_UNIT_IMAGE, 1, 4, 8, 12),
    ]
    assert {r.currency for r in rows} == {"EUR"}


async def test_rows_are_split_and_ordered_as_asked(service: UsageService, control: Redis) -> None:
    await record(
        control,
        used(1, key="b", model="x", day=TODAY - 1, tier=types.SERVICE_TIER_BATCH),
        used(2, key="a", model="y", family=types.API_FAMILY_EMBEDDINGS),
        used(4, key="b", model="x"),
    )
    rows = (await service.QueryUsage(query(KEY, DAY_OF, TENANT), OWN)).rows
    assert [(r.key_id, r.day.seconds // DAY - TODAY, r.tenant_id, r.input_units) for r in rows] == [
        ("a", 0, "acme", 2),
        ("b", -1, "acme", 1),
        ("b", 0, "acme", 4),
    ]
    rows = (await service.QueryUsage(query(TIER, FAMILY, MODEL), OWN)).rows
    assert [(r.tier, r.family, r.model) for r in rows] == [
        (types.SERVICE_TIER_STANDARD, types.API_FAMILY_INFERENCE, "x"),
        (types.SERVICE_TIER_STANDARD, types.API_FAMILY_EMBEDDINGS, "y"),
        (types.SERVICE_TIER_BATCH, types.API_FAMILY_INFERENCE, "x"),
    ]


async def test_filters_leave_out_what_was_not_asked_for(
    service: UsageService, control: Redis
) -> None:
    await record(
        control,
        used(1, key="a", model="x"),
        used(2, key="b", model="x", tier=types.SERVICE_TIER_BATCH),
        used(4, key="b", model="y", family=types.API_FAMILY_EMBEDDINGS),
    )

    async def total(**asked: Any) -> int:
        request = query(filter=pb.UsageFilter(**asked))
        return sum(r.input_units for r in (await service.QueryUsage(request, OWN)).rows)

    assert await total() == 7
    assert await total(key_ids=["b"]) == 6
    assert await total(models=["x"], key_ids=["b", "c"]) == 2
    assert await total(families=[types.API_FAMILY_EMBEDDINGS]) == 4
    assert await total(tiers=[types.SERVICE_TIER_STANDARD]) == 5
    assert await total(models=["nope"]) == 0


async def test_days_are_whole_and_both_ends_count(service: UsageService, control: Redis) -> None:
    await record(control, *(used(10**n, day=TODAY - n) for n in range(5)), used(7, day=TODAY - 31))

    async def total(**asked: Any) -> int:
        return sum(r.input_units for r in (await service.QueryUsage(query(**asked), OWN)).rows)

    assert await total() == 11_111
    assert await total(start_time=days_ago(2)) == 111
    assert await total(start_time=days_ago(3), end_time=days_ago(1)) == 1110
    assert await total(end_time=days_ago(1)) == 11_110 + 7


async def test_a_tenant_sees_its_own_and_admins_see_all(
    service: UsageService, control: Redis
) -> None:
    await record(control, used(1), used(2, tenant="globex"), used(4, tenant="acme-2"))

    async def seen(call: Call, *tenants: str) -> dict[str, int]:
        request = query(TENANT, filter=pb.UsageFilter(tenant_ids=tenants))
        return {r.tenant_id: r.input_units for r in (await service.QueryUsage(request, call)).rows}

    assert await seen(OWN) == {"acme": 1}
    assert await seen(OWN, "globex", "acme") == {"acme": 1}
    assert await seen(OWN, "globex") == {}
    assert await seen(ADMIN) == {"acme": 1, "globex": 2, "acme-2": 4}
    assert await seen(ADMIN, "globex", "nobody") == {"globex": 2}


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    amounts=st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from("xyz"), st.integers(0, 3)), max_size=12
    ),
    size=st.integers(1, 4),
)
async def test_pages_together_are_the_whole_answer(
    control: Redis, service: UsageService, amounts: list[tuple[int, str, int]], size: int
) -> None:
    await control.flushdb()
    if amounts:
        await record(control, *(used(a, model=m, day=TODAY - d) for a, m, d in amounts))
    whole = await service.QueryUsage(query(MODEL, DAY_OF), OWN)
    assert not whole.next_page_token
    rows: list[pb.UsageRow] = []
    token = ""
    while True:
        page = await service.QueryUsage(query(MODEL, DAY_OF, page_size=size, page_token=token), OWN)
        assert len(page.rows) <= size
        rows += page.rows
        token = page.next_page_token
        if not token:
            break
    assert rows == list(whole.rows)
    assert sum(row.input_units for row in rows) == sum(amount for amount, _, _ in amounts)


async def test_it_says_until_when_usage_is_sealed(service: UsageService, control: Redis) -> None:
    assert not (await service.QueryUsage(query(), OWN)).HasField("sealed_until")
    await control.hset(keys.LEDGER_HEADS, "sealed_until", "1764072000.5")
    sealed = (await service.QueryUsage(query(), OWN)).sealed_until
    assert (sealed.seconds, sealed.nanos) == (1764072000, 500_000_000)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (query(0), "group_by[0]"),
        (query(9), "group_by[0]"),
        (query(MODEL, MODEL), "group_by[1]"),
        (query(start_time=days_ago(1), end_time=days_ago(2)), "start_time"),
        (query(start_time=days_ago(401)), "start_time"),
        (query(end_time={"seconds": -1}), "end_time"),
        (query(end_time={"seconds": 10**15}), "end_time"),
        (query(page_size=10_001), "page_size"),
        (query(page_token="nonsense"), "page_token"),
        (query(filter=unknown(tiers=[7])), "filter.tiers[0]"),
        (query(filter=unknown(families=[1, 77])), "filter.families[1]"),
        (query(filter=pb.UsageFilter(models=["m"] * 1001)), "filter.models"),
    ],
)
async def test_what_makes_no_sense_is_named(
    service: UsageService, request_: pb.QueryUsageRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await service.QueryUsage(request_, OWN)
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_token_of_another_question_is_refused(
    service: UsageService, control: Redis
) -> None:
    await record(control, used(1, model="x"), used(1, model="y"))
    token = (await service.QueryUsage(query(MODEL, page_size=1), OWN)).next_page_token
    assert token
    with pytest.raises(InvalidArgument):
        await service.QueryUsage(query(FAMILY, page_token=token), OWN)


async def test_a_redis_that_is_away_is_said(redis_url: str) -> None:
    away = connect("redis://127.0.0.1:1/0")
    with pytest.raises(DependencyUnavailable):
        await UsageService(UsageReader(away), "", LimitStatus(away, away)).QueryUsage(query(), OWN)
    await away.aclose()
