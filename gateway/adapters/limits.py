"""GetLimits: what is left, as a message."""

from __future__ import annotations

import math

from gateway.calls import Principal
from gateway.limits.status import BudgetLeft, Left, LimitLeft
from penstock.api.types.v1 import limits_pb2, metadata_pb2
from penstock.api.usage.v1 import usage_pb2 as pb

_KINDS = {
    "requests": pb.LIMIT_KIND_REQUESTS_PER_MINUTE,
    "units": pb.LIMIT_KIND_UNITS_PER_MINUTE,
    "calls": pb.LIMIT_KIND_CONCURRENT_CALLS,
}
_SUBJECTS = {
    "key": pb.LIMIT_SUBJECT_KEY,
    "tenant": pb.LIMIT_SUBJECT_TENANT,
    "model": pb.LIMIT_SUBJECT_MODEL,
}


def limits_response(principal: Principal, left: Left) -> pb.GetLimitsResponse:
    """Every limit and budget that the principal meets."""
    return pb.GetLimitsResponse(
        limits=[_limit(one) for one in left.limits],
        budgets=[_budget(one) for one in left.budgets],
        highest_tier=metadata_pb2.ServiceTier.ValueType(principal.highest_tier),
    )


def _limit(left: LimitLeft) -> pb.LimitStatus:
    status = pb.LimitStatus(
        kind=_KINDS[left.kind],
        subject=_subject(left.subject),
        limit=left.limit,
        remaining=left.remaining,
        model=left.model,
    )
    if left.full_at is not None:
        status.reset_time.FromMilliseconds(int(left.full_at * 1000))
    return status


def _budget(left: BudgetLeft) -> pb.BudgetStatus:
    budget = left.budget
    status = pb.BudgetStatus(
        budget=limits_pb2.Budget(
            unit=metadata_pb2.UsageUnit.ValueType(budget.unit),
            amount=budget.amount,
            period=limits_pb2.BudgetPeriod.ValueType(budget.period),
            currency=budget.currency,
        ),
        subject=_subject(left.subject),
        spent=left.spent,
        reserved=left.reserved,
        model=left.model,
    )
    if not math.isinf(left.until):
        status.reset_time.FromMilliseconds(int(left.until * 1000))
    return status


def _subject(subject: str) -> pb.LimitSubject.ValueType:
    return _SUBJECTS[subject.partition(":")[0]]
