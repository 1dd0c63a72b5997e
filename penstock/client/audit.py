"""The SDK's methods that read the audit trail and verify the ledgers' chains."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from penstock.api.audit.v1 import audit_pb2 as audit
from penstock.api.audit.v1.audit_pb2_grpc import AuditServiceStub
from penstock.client.operations import Paged, Unary


def list_events(
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    include_payloads: bool = False,
    timeout: float | None = None,
    **conditions: Any,
) -> Paged[audit.AuditEvent]:
    """Every event that meets the conditions, newest first; by default those of the last 24 hours.

    ``conditions`` are fields of QueryEventsRequest, such as ``tenant_id``, ``key_id``, ``method``,
    ``model``, ``resource_id``, ``request_id``, ``subject`` and ``decision``. Naive times are UTC.
    All of them are held in memory: for large periods ask ``query`` for one page after another.
    ``timeout`` is in seconds a page. Raises InvalidArgument, Unauthenticated, ScopeMissing,
    RateLimited, DependencyUnavailable.
    """
    request = _query(start, end, include_payloads, 1000, "", conditions)
    return Paged(AuditServiceStub, "QueryEvents", request, lambda page: list(page.events), timeout)


def query_events(
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    include_payloads: bool = False,
    page_size: int = 0,
    page_token: str = "",
    timeout: float | None = None,
    **conditions: Any,
) -> Unary[audit.QueryEventsResponse]:
    """One page of ``list``: its events, and ``next_page_token``, empty at the end.

    A page may hold fewer events than ``page_size``, even none, before the end.
    """
    request = _query(start, end, include_payloads, page_size, page_token, conditions)
    return Unary(AuditServiceStub, "QueryEvents", request, lambda answer: answer, timeout)


def verify_chain(
    ledger: str = "audit",
    *,
    first_segment: int = 0,
    max_segments: int = 0,
    known_links: Iterable[audit.SegmentLink] = (),
    timeout: float | None = None,
) -> Unary[audit.VerifyChainResponse]:
    """Whether segments of a ledger, ``audit`` or ``usage``, are what was sealed.

    Go on with ``first_segment=answer.next_segment`` until that is 0. Links that you noted from an
    earlier answer's ``head`` prove that the chain was not rewritten since. ``timeout`` is in
    seconds. Raises InvalidArgument, Unauthenticated, ScopeMissing, DependencyUnavailable, and
    ValueError for another ledger.
    """
    request = audit.VerifyChainRequest(
        ledger=audit.Ledger.Value(f"LEDGER_{ledger.upper()}"),
        first_segment=first_segment,
        max_segments=max_segments,
        known_links=known_links,
    )
    return Unary(AuditServiceStub, "VerifyChain", request, lambda answer: answer, timeout)


def _query(
    start: datetime | None,
    end: datetime | None,
    include_payloads: bool,
    page_size: int,
    page_token: str,
    conditions: dict[str, Any],
) -> audit.QueryEventsRequest:
    request = audit.QueryEventsRequest(
        include_payloads=include_payloads,
        page_size=page_size,
        page_token=page_token,
        **conditions,
    )
    if start is not None:
        request.start_time.FromDatetime(start)
    if end is not None:
        request.end_time.FromDatetime(end)
    return request
