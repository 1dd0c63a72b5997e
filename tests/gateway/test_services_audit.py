"""The audit trail as callers read it: whole, in order, their own, and verified."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from gateway import audit_trail
from gateway.calls import Call, Principal
from gateway.payloads import PayloadKeeper
from gateway.services.audit import AuditService, LedgerReader
from penstock.api.audit.v1 import audit_pb2 as pb
from penstock.api.inference.v1.inference_pb2 import ClassifyRequest
from penstock.errors import InvalidArgument
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service.objects import Objects
from penstock.service.redis import connect
from tests.gateway.stage import call_of
from tests.service.ledger.writing import Ledger, event, ledger_in, ship

BEGAN_US = int(time.time() * 1e6) - 3_600_000_000


def an_event(number: int, tenant: str = "acme", *, billed: bool = True) -> CallEvent:
    """One of the last hour, later the higher its number."""
    return event(number, tenant=tenant, billed=billed, at_us=BEGAN_US)


@pytest.fixture
async def ledger(redis_url: str, tmp_path: Path) -> AsyncIterator[Ledger]:
    redis: Redis = connect(redis_url.rpartition("/")[0] + "/11")
    await redis.flushdb()
    yield ledger_in(tmp_path / "ledger", redis)
    await redis.aclose()


@pytest.fixture
async def payloads(tmp_path: Path) -> AsyncIterator[PayloadKeeper]:
    keeper = PayloadKeeper(Objects((tmp_path / "kept").as_uri()), "here", 10_000_000)
    keeper.start()
    yield keeper
    await keeper.stop()


@pytest.fixture
def service(ledger: Ledger, payloads: PayloadKeeper) -> AuditService:
    return AuditService(LedgerReader(ledger.control, ledger.audit, ledger.usage), payloads)


def caller(*scopes: str) -> Call:
    """A call of tenant acme; an administrator's when nothing is said."""
    call = call_of()
    call.principal = replace(call.principal, scopes=frozenset(scopes or ("*",)))
    return call


def keep(payloads: PayloadKeeper, one: CallEvent, request: bytes) -> None:
    """Keeps a call's request, as the pipeline does."""
    messages = payloads.collect(Principal("acme", "key", frozenset(), audit_payloads=True))
    assert messages is not None
    messages.received(request)
    one.payload_kept = payloads.offer(one, messages)
    assert one.payload_kept


async def listed(service: AuditService, call: Call, **conditions: object) -> list[str]:
    """The request ids of a whole listing, page by page."""
    request = pb.QueryEventsRequest(**conditions)  # type: ignore[arg-type]
    found: list[str] = []
    for _ in range(200):
        page = await service.QueryEvents(request, call)
        found += [one.request_id for one in page.events]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
    pytest.fail("the listing does not end")


def requests(*numbers: int, tenant: str = "acme") -> list[str]:
    return [f"request-{tenant}-{number}" for number in numbers]


async def test_events_come_newest_first_sealed_or_not_in_pages(
    service: AuditService, ledger: Ledger
) -> None:
    last = await ledger.seal([an_event(n) for n in range(7)], [an_event(n) for n in range(7, 12)])
    await ship(ledger.control, "s1", last + 1, [an_event(n) for n in range(12, 15)])
    for page_size in (1, 4, 100):
        assert await listed(service, caller(), page_size=page_size) == requests(*range(14, -1, -1))


async def test_a_listing_misses_and_repeats_nothing_while_events_are_sealed(
    service: AuditService, ledger: Ledger
) -> None:
    await ledger.seal([an_event(n) for n in range(5)])
    await ship(ledger.control, "s1", 6, [an_event(n) for n in range(5, 10)])
    request = pb.QueryEventsRequest(page_size=2)
    page = await service.QueryEvents(request, caller())
    await ledger.sealer().seal()
    await ledger.seal([an_event(99)], first=11)
    found = list(page.events)
    while page.next_page_token:
        request.page_token = page.next_page_token
        page = await service.QueryEvents(request, caller())
        found += page.events
    assert [one.request_id for one in found] == requests(*range(9, -1, -1))
    assert [one.segment for one in found] == [0, 0, 2, 2, 2, 1, 1, 1, 1, 1]


async def test_a_caller_sees_its_own_tenant_and_an_administrator_all(
    service: AuditService, ledger: Ledger
) -> None:
    await ledger.seal([an_event(1), an_event(2, "umbra"), an_event(3, "")])
    own = caller("audit:read")
    assert await listed(service, own) == requests(1)
    assert await listed(service, own, tenant_id="acme") == requests(1)
    assert await listed(service, own, tenant_id="umbra") == []
    assert await listed(service, own, request_id="request-umbra-2") == []
    everything = requests(3, tenant="") + requests(2, tenant="umbra") + requests(1)
    assert await listed(service, caller("audit:read", "admin:read")) == everything
    assert await listed(service, caller(), tenant_id="umbra") == requests(2, tenant="umbra")


async def test_each_condition_narrows_the_list(service: AuditService, ledger: Ledger) -> None:
    events = [an_event(n, billed=n != 4) for n in range(6)]
    events[5].resource_id, events[3].method = (
        "file_1",
        "/penstock.api.files.v1.FilesService/GetFile",
    )
    await ledger.seal(events[:4])
    await ship(ledger.control, "s1", 5, events[4:])
    assert await listed(service, caller(), model="fraud") == requests(3, 0)
    assert await listed(service, caller(), key_id="key1") == requests(5, 3, 1)
    assert await listed(service, caller(), subject="pseudonym-1") == requests(4, 1)
    assert await listed(service, caller(), resource_id="file_1") == requests(5)
    assert await listed(service, caller(), request_id="request-acme-2") == requests(2)
    assert await listed(service, caller(), decision=pb.AUDIT_DECISION_REFUSED) == requests(4)
    assert await listed(service, caller(), method="/penstock.api.files.*") == requests(3)
    assert await listed(service, caller(), method=events[3].method) == requests(3)


async def test_a_period_includes_its_start_and_not_its_end(
    service: AuditService, ledger: Ledger
) -> None:
    await ledger.seal([an_event(n) for n in range(3)], [an_event(n) for n in range(3, 6)])
    start, end = Timestamp(), Timestamp()
    start.FromMicroseconds(BEGAN_US + 1_500)
    end.FromMicroseconds(BEGAN_US + 4_500)
    assert await listed(service, caller(), start_time=start, end_time=end) == requests(3, 2, 1)
    day_later = Timestamp()
    day_later.FromMicroseconds(BEGAN_US + 86_400_000_000)
    assert await listed(service, caller(), end_time=day_later) == requests(*range(5, -1, -1))
    two_days_later = Timestamp()
    two_days_later.FromMicroseconds(BEGAN_US + 2 * 86_400_000_000)
    assert await listed(service, caller(), end_time=two_days_later) == []


async def test_an_event_tells_all_that_the_ledger_knows(
    service: AuditService, ledger: Ledger
) -> None:
    await ledger.seal([an_event(4)])
    (told,) = (await service.QueryEvents(pb.QueryEventsRequest(), caller())).events
    assert told.id.startswith("evt_")
    assert told.time.ToMicroseconds() == BEGAN_US + 4_500
    assert (told.tenant_id, told.key_id, told.segment, told.code) == ("acme", "key2", 1, "OK")
    assert (told.usage.input_units, told.input_digest) == (5, "04" * 32)
    assert told.decision == pb.AUDIT_DECISION_ALLOWED


async def test_a_page_ends_after_so_many_files_and_the_next_goes_on(
    service: AuditService, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_trail, "FILES_A_PAGE", 2)
    await ledger.seal(*[[an_event(n)] for n in range(5)])
    page = await service.QueryEvents(pb.QueryEventsRequest(model="none"), caller())
    assert not page.events
    assert page.next_page_token
    assert await listed(service, caller()) == requests(4, 3, 2, 1, 0)


@pytest.mark.parametrize("token", ["!", "AAAA", "MTox"])
async def test_a_made_up_token_is_refused(service: AuditService, token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        await service.QueryEvents(pb.QueryEventsRequest(page_token=token), caller())


async def test_a_token_belongs_to_its_query(service: AuditService, ledger: Ledger) -> None:
    await ledger.seal([an_event(n) for n in range(3)])
    page = await service.QueryEvents(pb.QueryEventsRequest(page_size=1), caller())
    other = pb.QueryEventsRequest(page_token=page.next_page_token, model="fraud")
    with pytest.raises(InvalidArgument, match="page_token"):
        await service.QueryEvents(other, caller())


async def test_kept_payloads_come_when_they_are_asked_for(
    service: AuditService, ledger: Ledger, payloads: PayloadKeeper
) -> None:
    kept, bare = an_event(1), an_event(2)
    request = ClassifyRequest(texts=["hello"]).SerializeToString()
    keep(payloads, kept, request)
    await payloads.stop()
    await ledger.seal([kept, bare])
    asked = pb.QueryEventsRequest(include_payloads=True)
    second, first = (await service.QueryEvents(asked, caller())).events
    assert (first.input, second.input) == (request, b"")
    silent = (await service.QueryEvents(pb.QueryEventsRequest(), caller())).events
    assert [one.input for one in silent] == [b"", b""]


async def test_a_page_of_large_payloads_ends_early(
    service: AuditService, ledger: Ledger, payloads: PayloadKeeper
) -> None:
    request = ClassifyRequest(texts=["x " * 2_500_000]).SerializeToString()
    events = [an_event(n) for n in range(3)]
    for one in events:
        keep(payloads, one, request)
    await payloads.stop()
    await ledger.seal(events)
    asked = pb.QueryEventsRequest(include_payloads=True)
    page = await service.QueryEvents(asked, caller())
    assert [one.request_id for one in page.events] == requests(2)
    assert await listed(service, caller(), include_payloads=True) == requests(2, 1, 0)


async def test_an_intact_chain_verifies_page_by_page(service: AuditService, ledger: Ledger) -> None:
    await ledger.seal(*[[an_event(n), an_event(n + 50, billed=False)] for n in range(5)])
    request = pb.VerifyChainRequest(ledger=pb.LEDGER_AUDIT, max_segments=3)
    first = await service.VerifyChain(request, caller())
    assert (first.intact, first.segments, first.events, first.next_segment) == (True, 3, 6, 4)
    request.first_segment = first.next_segment
    request.known_links.append(first.head)
    second = await service.VerifyChain(request, caller())
    assert (second.intact, second.segments, second.next_segment) == (True, 2, 0)
    assert second.head.segment == 5
    assert second.sealed_until.seconds > 0
    usage = pb.VerifyChainRequest(ledger=pb.LEDGER_USAGE)
    assert (await service.VerifyChain(usage, caller())).events == 5


async def test_a_broken_chain_is_an_answer(service: AuditService, ledger: Ledger) -> None:
    await ledger.seal(*[[an_event(n)] for n in range(3)])
    await asyncio.to_thread(shutil.rmtree, ledger.folder_of("audit", 2))
    request = pb.VerifyChainRequest(ledger=pb.LEDGER_AUDIT)
    request.known_links.add(segment=3, hash="ab" * 32)
    answer = await service.VerifyChain(request, caller())
    assert not answer.intact
    assert [(fault.segment, fault.kind) for fault in answer.faults] == [
        (2, pb.CHAIN_FAULT_KIND_MISSING),
        (3, pb.CHAIN_FAULT_KIND_LINK_MISMATCH),
    ]


async def test_a_verification_that_makes_no_sense_is_refused(service: AuditService) -> None:
    request = pb.VerifyChainRequest(first_segment=-1, max_segments=10_001)
    request.known_links.add(segment=0, hash="not a hash")
    with pytest.raises(InvalidArgument) as caught:
        await service.VerifyChain(request, caller())
    assert {violation.field for violation in caught.value.violations} == {
        "ledger",
        "first_segment",
        "max_segments",
        "known_links[0].segment",
        "known_links[0].hash",
    }
