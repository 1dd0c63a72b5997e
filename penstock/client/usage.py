"""The SDK's methods that say what was used, and what may still be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal, TypeAlias, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.api.types.v1 import metadata_pb2
from penstock.api.usage.v1 import usage_pb2 as usage
from penstock.api.usage.v1.usage_pb2_grpc import UsageServiceStub
from penstock.client.inputs import Tier, tier_number
from penstock.client.operations import Paged, Unary

Number = TypeVar("Number")
Dimension: TypeAlias = Literal["tenant", "key", "model", "family", "tier", "day"]
"""Something by which usage can be split."""
Family: TypeAlias = Literal["inference", "embeddings", "multimodal", "batch", "finetuning"]

DIMENSIONS: Mapping[str, usage.UsageDimension.ValueType] = {
    name.removeprefix("USAGE_DIMENSION_").lower(): value
    for name, value in usage.UsageDimension.items()
    if value
}
_FAMILIES: Mapping[str, metadata_pb2.ApiFamily.ValueType] = {
    name.removeprefix("API_FAMILY_").lower(): value
    for name, value in metadata_pb2.ApiFamily.items()
    if value
}
_PAGE_SIZE = 10_000


def query_usage(
    by: Dimension | Sequence[Dimension] = (),
    *,
    days: int = 30,
    end: date | None = None,
    tenants: Sequence[str] = (),
    keys: Sequence[str] = (),
    models: Sequence[str] = (),
    families: Sequence[Family] = (),
    tiers: Sequence[Tier] = (),
    timeout: float | None = None,
) -> Paged[usage.UsageRow]:
    """Sum usage over whole UTC days: ``query(by=["day", "model"])``. Units are never mixed.

    ``days`` (1 to 401) end with ``end``, which is today unless given; an empty filter leaves that
    open. A row's ``cost_micros`` are millionths of its ``currency``. ``timeout`` is in seconds a
    page. Raises InvalidArgument, ScopeMissing, RateLimited, Unavailable; ValueError for a name
    that there is not.
    """
    last = end or datetime.now(UTC).date()
    dimensions = [by] if isinstance(by, str) else by
    request = usage.QueryUsageRequest(
        start_time=_beginning(last - timedelta(days=days - 1)),
        end_time=_beginning(last),
        group_by=[_number(DIMENSIONS, name, "dimension") for name in dimensions],
        filter=usage.UsageFilter(
            tenant_ids=tenants,
            key_ids=keys,
            models=models,
            families=[_number(_FAMILIES, name, "family") for name in families],
            tiers=[tier_number(tier) for tier in tiers],
        ),
        page_size=_PAGE_SIZE,
    )
    return Paged(UsageServiceStub, "QueryUsage", request, lambda page: list(page.rows), timeout)


def get_limits(*, timeout: float | None = None) -> Unary[usage.GetLimitsResponse]:
    """Say what the key may use, and what of it is left now. Asking uses nothing.

    ``timeout`` is in seconds. Raises ScopeMissing, Unavailable.
    """
    request = usage.GetLimitsRequest()
    return Unary(UsageServiceStub, "GetLimits", request, lambda answer: answer, timeout)


def _beginning(day: date) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime(day.year, day.month, day.day, tzinfo=UTC))
    return moment


def _number(names: Mapping[str, Number], name: str, what: str) -> Number:
    if name not in names:
        raise ValueError(f"{name!r} is no {what}; there are {', '.join(names)}")
    return names[name]
