"""What a question about usage may hold, and what it means once it is found good."""

from __future__ import annotations

import json
import time
from collections.abc import Collection

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.ledger.usage import Group, Query
from gateway.validation.fields import Violations, check_enum
from gateway.validation.pages import page_token, read_page_token
from penstock.api.types.v1 import metadata_pb2
from penstock.api.usage.v1 import usage_pb2 as pb

DEFAULT_DAYS = 30
MOST_DAYS = 400
DEFAULT_PAGE_SIZE = 1_000
MAX_PAGE_SIZE = 10_000
MOST_FILTER_VALUES = 1_000
_DAY_SECONDS = 86_400
_LAST_DAY = 2_932_896
"""9999-12-31."""
_TEXTS = (
    pb.USAGE_DIMENSION_TENANT,
    pb.USAGE_DIMENSION_KEY,
    pb.USAGE_DIMENSION_MODEL,
    pb.USAGE_DIMENSION_DAY,
)


def read_query(request: pb.QueryUsageRequest, tenants: frozenset[str]) -> Query:
    """The question, about these tenants. Raises InvalidArgument."""
    violations = Violations()
    first, last = _days(request, violations)
    for index, dimension in enumerate(request.group_by):
        field = f"group_by[{index}]"
        if dimension == pb.USAGE_DIMENSION_UNSPECIFIED:
            violations.add(field, "is not a dimension")
        elif dimension in request.group_by[:index]:
            violations.add(field, "is there twice")
        else:
            check_enum(field, dimension, max(pb.UsageDimension.values()), violations)
    asked = request.filter
    for name in ("tenant_ids", "key_ids", "models", "families", "tiers"):
        if len(getattr(asked, name)) > MOST_FILTER_VALUES:
            violations.add(f"filter.{name}", f"has more than {MOST_FILTER_VALUES:,} values")
    _check_known("filter.families", asked.families, metadata_pb2.ApiFamily.values(), violations)
    _check_known("filter.tiers", asked.tiers, metadata_pb2.ServiceTier.values(), violations)
    if request.page_size > MAX_PAGE_SIZE:
        violations.add("page_size", f"is {request.page_size:,}; at most {MAX_PAGE_SIZE:,}")
    if request.page_token and group_after(request) is None:
        violations.add("page_token", "is not one that an earlier page gave")
    violations.refuse()
    return Query(
        first,
        last,
        tenants,
        frozenset(asked.key_ids),
        frozenset(asked.models),
        frozenset(asked.families),
        frozenset(asked.tiers),
        tuple(request.group_by),
    )


def group_token(group: Group) -> str:
    """The token of the page that follows the group."""
    return page_token(json.dumps(group))


def group_after(request: pb.QueryUsageRequest) -> Group | None:
    """The group that the page follows; None where the token is none of this question."""
    try:
        group = json.loads(read_page_token(request.page_token))
    except ValueError:
        return None
    kinds = [str if dimension in _TEXTS else int for dimension in request.group_by] + [int]
    if not isinstance(group, list) or [type(value) for value in group] != kinds:
        return None
    return tuple(group)


def _days(request: pb.QueryUsageRequest, violations: Violations) -> tuple[int, int]:
    last = int(time.time()) // _DAY_SECONDS
    if request.HasField("end_time"):
        last = _day("end_time", request.end_time, violations)
    first = last - DEFAULT_DAYS
    if request.HasField("start_time"):
        first = _day("start_time", request.start_time, violations)
    if first > last:
        violations.add("start_time", "is after the end")
    elif last - first > MOST_DAYS:
        violations.add("start_time", f"is more than {MOST_DAYS} days before the end")
    return first, last


def _day(field: str, moment: Timestamp, violations: Violations) -> int:
    day = moment.seconds // _DAY_SECONDS
    if not 0 <= day <= _LAST_DAY:
        violations.add(field, "is not between the years 1970 and 9999")
        return 0
    return day


def _check_known(
    field: str, values: Collection[int], known: Collection[int], violations: Violations
) -> None:
    for index, value in enumerate(values):
        if value not in known:
            violations.add(f"{field}[{index}]", f"{value} is not a known value")
