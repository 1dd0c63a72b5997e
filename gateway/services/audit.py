"""AuditService: who did what, and whether anybody has changed the record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.adapters.audit import audit_event, verification
from gateway.audit_trail import AuditTrail, Found, after
from gateway.authorisation import holds
from gateway.calls import Call
from gateway.payloads import PayloadKeeper
from gateway.validation.audit import (
    DEFAULT_PAGE_SIZE,
    DEFAULT_SEGMENTS,
    check_query,
    check_verify,
    page_token,
)
from penstock.api.audit.v1 import audit_pb2 as pb
from penstock.errors import DependencyUnavailable
from penstock.service.ledger.chains import Chain
from penstock.service.ledger.heads import Heads, read_heads
from penstock.service.ledger.links import LinkBroken
from penstock.service.ledger.verification import MAC_MISMATCH, Fault, verify
from penstock.service.objects import Objects

ALL_TENANTS = "admin:read"
MOST_PAYLOAD_BYTES = 8 * 1024 * 1024
"""A page with payloads ends once it holds so many."""
PAYLOADS_AT_ONCE = 8
TIME_SHARE = 0.5
"""The share of a call's time after which a verification ends early."""


@dataclass(frozen=True, slots=True)
class LedgerReader:
    """The ledger as a gateway reads it."""

    control: Redis
    audit: Chain
    usage: Chain


def ledger_reader(control: Redis, uri: str, key: bytes) -> LedgerReader:
    """The chains below an address, authenticated by the cluster's ledger key."""
    objects = Objects(uri)
    return LedgerReader(control, Chain(objects, "audit", key), Chain(objects, "usage", key))


class AuditService:
    """Lists events and verifies chains."""

    def __init__(self, ledger: LedgerReader, payloads: PayloadKeeper) -> None:
        self._ledger = ledger
        self._trail = AuditTrail(ledger.control, ledger.audit)
        self._payloads = payloads

    async def QueryEvents(
        self, request: pb.QueryEventsRequest, call: Call
    ) -> pb.QueryEventsResponse:
        """One page of events, newest first."""
        query, position = check_query(request)
        own = call.principal.tenant
        if not holds(call.principal.scopes, ALL_TENANTS):
            if query.tenant not in (None, own):
                return pb.QueryEventsResponse()
            query = replace(query, tenant=own)
        size = request.page_size or DEFAULT_PAGE_SIZE
        with _stores_awaited():
            try:
                begins = position or await self._trail.begin()
                found, goes_on = await self._trail.page(query, begins, size)
            except LinkBroken as broken:
                raise DependencyUnavailable("the ledger's head cannot be trusted") from broken
        events = [audit_event(one) for one in found]
        if request.include_payloads:
            kept = await self._add_payloads(found, events)
            if kept < len(events):
                del events[kept:]
                goes_on = after(begins.top, found[kept - 1])
        token = "" if goes_on is None else page_token(request, goes_on, query.end_us)
        return pb.QueryEventsResponse(events=events, next_page_token=token)

    async def VerifyChain(
        self, request: pb.VerifyChainRequest, call: Call
    ) -> pb.VerifyChainResponse:
        """Whether some segments are what was sealed."""
        known = check_verify(request)
        usage = request.ledger == pb.LEDGER_USAGE
        chain = self._ledger.usage if usage else self._ledger.audit
        with _stores_awaited():
            fault = None
            try:
                heads = await read_heads(self._ledger.control, chain.key)
            except LinkBroken:
                last = await chain.last_segment()
                fault = Fault(last, MAC_MISMATCH, "the head in Redis was changed")
                heads = Heads()
            found = await verify(
                chain,
                heads.of(chain.ledger),
                known,
                request.first_segment or 1,
                request.max_segments or DEFAULT_SEGMENTS,
                _enough(call),
            )
        if fault is not None:
            found.faults.insert(0, fault)
        return verification(found)

    async def _add_payloads(self, found: list[Found], events: list[pb.AuditEvent]) -> int:
        """Adds what was kept; how many of the events fit into an answer, at least one."""
        total = 0
        for start in range(0, len(found), PAYLOADS_AT_ONCE):
            some = found[start : start + PAYLOADS_AT_ONCE]
            kept = await asyncio.gather(*[self._payload(one) for one in some])
            for index, payload in enumerate(kept, start):
                if payload is not None:
                    size = len(payload.input) + len(payload.output)
                    if total and total + size > MOST_PAYLOAD_BYTES:
                        return index
                    total += size
                    events[index].input, events[index].output = payload.input, payload.output
        return len(found)

    async def _payload(self, found: Found) -> pb.AuditEvent | None:
        return await self._payloads.read(found.event) if found.event.payload_kept else None


def _enough(call: Call) -> Callable[[], bool]:
    ends = time.monotonic() + TIME_SHARE * call.remaining()
    return lambda: time.monotonic() > ends


@contextmanager
def _stores_awaited() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise DependencyUnavailable(
            "the audit trail cannot be read right now", retry_after_seconds=1.0
        ) from error
