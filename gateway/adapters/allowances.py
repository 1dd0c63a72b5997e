"""Limits, budgets and times between the contract's messages and the stored records."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.api.types.v1 import limits_pb2
from penstock.service.quotas import Budget, Limits, ModelLimits


def limits_of(message: limits_pb2.Limits) -> Limits:
    """The limits as they are stored; absent ones stay absent."""
    return Limits(**{field.name: value for field, value in message.ListFields()})


def limits_message(limits: Limits) -> limits_pb2.Limits:
    """The limits as callers see them."""
    return limits_pb2.Limits(**limits.model_dump(exclude_none=True))


def budgets_of(messages: Iterable[limits_pb2.Budget]) -> tuple[Budget, ...]:
    """The budgets as they are stored."""
    return tuple(
        Budget(unit=m.unit, amount=m.amount, period=m.period, currency=m.currency) for m in messages
    )


def budget_messages(budgets: Iterable[Budget]) -> list[limits_pb2.Budget]:
    """The budgets as callers see them."""
    return [limits_pb2.Budget(**budget.model_dump()) for budget in budgets]


def model_limits_of(messages: Iterable[limits_pb2.ModelLimits]) -> tuple[ModelLimits, ...]:
    """The limits of single models as they are stored."""
    return tuple(
        ModelLimits(model=m.model, limits=limits_of(m.limits), budgets=budgets_of(m.budgets))
        for m in messages
    )


def model_limits_messages(entries: Iterable[ModelLimits]) -> list[limits_pb2.ModelLimits]:
    """The limits of single models as callers see them."""
    return [
        limits_pb2.ModelLimits(
            model=entry.model,
            limits=limits_message(entry.limits),
            budgets=budget_messages(entry.budgets),
        )
        for entry in entries
    ]


def timestamp(at: float | None) -> Timestamp | None:
    """Unix seconds as a message; None stays absent."""
    if at is None:
        return None
    message = Timestamp()
    message.FromMicroseconds(round(at * 1e6))
    return message


def unix_seconds(message: Timestamp) -> float:
    """A message as Unix seconds."""
    return message.ToMicroseconds() / 1e6
