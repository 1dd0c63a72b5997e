"""The audit trail's events and the faults of a chain as the API tells them."""

from __future__ import annotations

from gateway.audit_trail import Found
from penstock.api.audit.v1 import audit_pb2 as pb
from penstock.service.ledger.segments import code_name
from penstock.service.ledger.verification import Verification

MOST_FAULTS = 100
"""Faults in one answer."""


def audit_event(found: Found) -> pb.AuditEvent:
    """One event, without its payload."""
    event = found.event
    told = pb.AuditEvent(
        id=event.id,
        request_id=event.request_id,
        tenant_id=event.tenant,
        key_id=event.key_id,
        subject=event.subject,
        method=event.method,
        model=event.model,
        model_version=event.model_version,
        resource_id=event.resource_id,
        decision=event.decision,
        code=code_name(event.code),
        reason=event.reason,
        tier=event.tier,
        region=event.region,
        replica=event.replica,
        input_digest=event.input_digest.hex(),
        output_digest=event.output_digest.hex(),
        segment=found.segment,
    )
    told.time.FromMicroseconds(found.ended_us)
    if event.usage:
        told.usage.CopyFrom(event.usage[0])
    return told


def verification(found: Verification) -> pb.VerifyChainResponse:
    """What was found in some segments."""
    answer = pb.VerifyChainResponse(
        intact=not found.faults,
        faults=[
            pb.ChainFault(segment=fault.segment, kind=fault.kind, description=fault.description)
            for fault in found.faults[:MOST_FAULTS]
        ],
        segments=found.segments,
        events=found.events,
        next_segment=found.next_segment,
    )
    if found.head is not None:
        answer.head.segment, answer.head.hash = found.head.segment, found.head.hash
        answer.sealed_until.FromMicroseconds(int(found.head.sealed_at * 1e6))
    return answer
