"""Tenants between the contract's messages and the stored records."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from gateway.adapters.allowances import (
    budget_messages,
    budgets_of,
    limits_message,
    limits_of,
    model_limits_messages,
    model_limits_of,
    timestamp,
)
from gateway.validation.admin import seconds_of
from penstock.api.admin.v1 import tenants_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.service.tenants import Retention, TenantRecord, TenantState

STATES: Mapping[TenantState, pb.TenantState.ValueType] = {
    "active": pb.TENANT_STATE_ACTIVE,
    "suspended": pb.TENANT_STATE_SUSPENDED,
    "erased": pb.TENANT_STATE_ERASED,
}
STATE_NAMES: Mapping[int, TenantState] = {number: name for name, number in STATES.items()}

FIXED = frozenset({"id", "state", "etag", "create_time", "update_time"})
"""Fields that no update changes."""
DEFAULT_WEIGHT = 100


def tenant_message(record: TenantRecord) -> pb.Tenant:
    """One tenant as operators see it; of an erased one only the bones."""
    message = pb.Tenant(
        id=record.id,
        state=STATES[record.state],
        etag=record.etag,
        create_time=timestamp(record.created_at),
        update_time=timestamp(record.updated_at),
    )
    if record.state == "erased":
        return message
    message.MergeFrom(
        pb.Tenant(
            display_name=record.display_name,
            limits=limits_message(record.limits),
            budgets=budget_messages(record.budgets),
            model_limits=model_limits_messages(record.model_limits),
            allowed_models=record.allowed_models,
            allowed_regions=record.allowed_regions,
            highest_tier=metadata_pb2.ServiceTier.ValueType(record.highest_tier),
            weight=record.weight,
            retention=_retention_message(record.retention),
            audit_payloads=record.audit_payloads,
            labels=record.labels,
        )
    )
    return message


def tenant_record(message: pb.Tenant, stored: TenantRecord | None = None) -> TenantRecord:
    """The record with the message's fields, but for those that are fixed."""
    stored = stored or TenantRecord(id=message.id)
    return stored.model_copy(
        update={
            "display_name": message.display_name,
            "limits": limits_of(message.limits),
            "budgets": budgets_of(message.budgets),
            "model_limits": model_limits_of(message.model_limits),
            "allowed_models": tuple(message.allowed_models),
            "allowed_regions": tuple(message.allowed_regions),
            "highest_tier": message.highest_tier or metadata_pb2.SERVICE_TIER_STANDARD,
            "weight": message.weight or DEFAULT_WEIGHT,
            "retention": Retention(
                **{field.name: seconds_of(kept) for field, kept in message.retention.ListFields()}
            ),
            "audit_payloads": message.audit_payloads,
            "labels": dict(message.labels),
        }
    )


def _retention_message(retention: Retention) -> pb.Retention:
    message = pb.Retention()
    for name, seconds in retention.model_dump(exclude_none=True).items():
        kept: Duration = getattr(message, name)
        kept.FromMicroseconds(round(seconds * 1e6))
    return message
