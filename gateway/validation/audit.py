"""What a request of AuditService may hold, and the tokens that its pages hand out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time

from gateway.audit_trail import Position, Query
from gateway.validation.fields import Violations, check_enum, quote
from penstock.api.audit.v1 import audit_pb2 as pb

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000
DEFAULT_SEGMENTS = 1_000
MAX_SEGMENTS = 10_000
DAY_US = 86_400_000_000
MOST_TEXT_CHARACTERS = 256
"""Longest condition on a text."""

_HASH = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(
    r"([0-9]{1,15}):([0-9]{1,15}):(-1|[0-9]{1,18}):([\w-]{0,64}):([0-9]{1,18}):(.*)"
)
_TEXTS = ("tenant_id", "key_id", "method", "model", "resource_id", "request_id", "subject")
_LEDGERS = {pb.LEDGER_USAGE, pb.LEDGER_AUDIT}


def check_query(request: pb.QueryEventsRequest) -> tuple[Query, Position | None]:
    """The query, for all tenants unless the request names one, and where its listing goes on.

    Raises InvalidArgument.
    """
    violations = Violations()
    if request.page_size > MAX_PAGE_SIZE:
        told = f"is {request.page_size:,}; at most {MAX_PAGE_SIZE:,} are allowed"
        violations.add("page_size", told)
    check_enum("decision", request.decision, pb.AUDIT_DECISION_REFUSED, violations)
    for name in _TEXTS:
        if len(text := getattr(request, name)) > MOST_TEXT_CHARACTERS:
            violations.add(name, f"{quote(text)} is longer than anything that could be found")
    position, now_us = None, time.time_ns() // 1000
    if request.page_token:
        try:
            position, now_us = read_page_token(request)
        except ValueError:
            violations.add("page_token", "is not one that an earlier page of this query gave")
    end_us = request.end_time.ToMicroseconds() if request.HasField("end_time") else now_us
    start_us = end_us - DAY_US
    if request.HasField("start_time"):
        start_us = request.start_time.ToMicroseconds()
        if start_us >= end_us:
            violations.add("start_time", "is not before the end")
    violations.refuse()
    conditions = {name: getattr(request, name) for name in _TEXTS if name != "tenant_id"}
    tenant = request.tenant_id or None
    query = Query(start_us, end_us, tenant, decision=request.decision, **conditions)
    return query, position


def page_token(request: pb.QueryEventsRequest, position: Position, end_us: int) -> str:
    """The token of the page that goes on at this position of the query."""
    parts = (*position, end_us, _fingerprint(request))
    return base64.urlsafe_b64encode(":".join(map(str, parts)).encode()).decode().rstrip("=")


def read_page_token(request: pb.QueryEventsRequest) -> tuple[Position, int]:
    """The position, and the end of the query's period in microseconds since 1970.

    Raises ValueError when this server never made the token for this query.
    """
    token = request.page_token
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a page token") from error
    match = _TOKEN.fullmatch(text)
    if match is None or match[6] != _fingerprint(request):
        raise ValueError("not a page token")
    return Position(int(match[1]), int(match[2]), int(match[3]), match[4]), int(match[5])


def check_verify(request: pb.VerifyChainRequest) -> dict[int, str]:
    """The known links' hashes by segment. Raises InvalidArgument."""
    violations = Violations()
    if request.ledger not in _LEDGERS:
        violations.add("ledger", "is required: usage or audit")
    if request.first_segment < 0:
        violations.add("first_segment", "is negative; segments count from 1")
    if request.max_segments > MAX_SEGMENTS:
        told = f"is {request.max_segments:,}; at most {MAX_SEGMENTS:,} are allowed"
        violations.add("max_segments", told)
    for index, link in enumerate(request.known_links):
        if link.segment < 1:
            violations.add(f"known_links[{index}].segment", "segments count from 1")
        if _HASH.fullmatch(link.hash) is None:
            violations.add(f"known_links[{index}].hash", "is not a SHA-256 in lower-case hex")
    violations.refuse()
    return {link.segment: link.hash for link in request.known_links}


def _fingerprint(request: pb.QueryEventsRequest) -> str:
    """Ties a token to its query: another query's position would leave events out."""
    bare = pb.QueryEventsRequest()
    bare.CopyFrom(request)
    for name in ("page_token", "page_size", "include_payloads"):
        bare.ClearField(name)
    encoded = bare.SerializeToString(deterministic=True)
    return hashlib.sha256(encoded).hexdigest()[:16]
