"""Every call becomes exactly one event, and is billed for what was delivered."""

from __future__ import annotations

import asyncio
import hmac
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from gateway.calls import Call, Principal
from gateway.ledger.events import EventWriter
from gateway.ledger.journal import Journal
from gateway.ledger.sources import Source
from gateway.limits.tickets import Billed, Plan, Ticket
from gateway.payloads import PayloadKeeper
from penstock.api.audit.v1 import audit_pb2
from penstock.api.embeddings.v1.embeddings_pb2 import EmbedRequest
from penstock.api.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.types.v1 import metadata_pb2 as types
from penstock.errors import Cancelled
from penstock.internal.ledger.v1.events_pb2 import CallEvent, WriteAheadRecord
from penstock.service.objects import Objects
from penstock.service.prices import PriceTable
from tests.gateway.ledger.metered import Metered, echo_request, metered, rows
from tests.gateway.ledger.records import KEY, read_all
from tests.gateway.ledger.seen import billed, totals

ALLOWED, REFUSED = audit_pb2.AUDIT_DECISION_ALLOWED, audit_pb2.AUDIT_DECISION_REFUSED
STORY = pb.GenerateRequest(model="storyteller", prompt="Once")


@pytest.fixture
async def served(redis_url: str, tmp_path: Path) -> AsyncIterator[Metered]:
    async with metered(redis_url, tmp_path) as ready:
        yield ready


def units(event: CallEvent) -> list[tuple[int, int]]:
    return [(usage.input_units, usage.output_units) for usage in event.usage]


async def test_an_answered_call_says_who_what_where_and_what_it_cost(served: Metered) -> None:
    before = time.time()
    call = served.stub.Predict(rows(3), metadata=served.metadata)
    answer = await call
    (event,) = await served.events(1)
    assert event.request_id == answer.metadata.request_id
    assert event.id == f"evt_{event.request_id}"
    assert (event.tenant, event.method) == (
        "acme",
        "/penstock.api.inference.v1.InferenceService/Predict",
    )
    assert event.key_id
    assert (event.family, event.tier) == (
        types.API_FAMILY_INFERENCE,
        types.SERVICE_TIER_STANDARD,
    )
    assert (event.model, event.model_version, event.region, event.replica) == (
        *("echo", "1"),
        *("here", "r1"),
    )
    assert (event.decision, event.code, event.reason) == (ALLOWED, 0, "")
    assert list(event.usage) == [answer.metadata.usage]
    assert event.cost_micros == 15
    assert before - 1 < event.started_us / 1e6 < time.time()
    assert 0 < event.duration_us < 5_000_000
    assert await totals(served.stage.redis) == billed([event])


async def test_the_open_inference_protocol_is_billed_too(served: Metered) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(served.channel)
    await stub.ModelInfer(echo_request(4), metadata=served.metadata)

    async def requests() -> AsyncIterator[object]:
        for count in (1, 2):
            yield echo_request(count)

    async for _ in stub.ModelStreamInfer(requests(), metadata=served.metadata):
        pass
    first, second = await served.events(2)
    assert (units(first), units(second)) == ([(4, 0)], [(3, 0)])
    assert first.family == second.family == types.API_FAMILY_INFERENCE


async def refused(call: object) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call  # type: ignore[misc]


async def test_refused_calls_are_written_down_and_cost_nothing(served: Metered) -> None:
    stub = served.stub
    await refused(stub.Predict(rows(1)))
    await refused(stub.Predict(rows(1), metadata=(("authorization", "Bearer nonsense"),)))
    await refused(stub.Predict(rows(1), metadata=await served.with_key("models:read")))
    limited = await served.with_key(requests_per_minute=1)
    await stub.Predict(rows(1), metadata=limited)
    await refused(stub.Predict(rows(1), metadata=limited))
    await refused(stub.Predict(pb.PredictRequest(model="echo"), metadata=served.metadata))
    await refused(EmbeddingsServiceStub(served.channel).Embed(EmbedRequest(), metadata=limited))
    events = await served.events(7)
    assert [(e.reason, e.decision, e.tenant) for e in events] == [
        ("CREDENTIALS_MISSING", REFUSED, ""),
        ("CREDENTIALS_INVALID", REFUSED, ""),
        ("SCOPE_MISSING", REFUSED, "acme"),
        ("", ALLOWED, "acme"),
        ("RATE_LIMITED", REFUSED, "acme"),
        ("FIELD_INVALID", ALLOWED, "acme"),
        ("RATE_LIMITED", REFUSED, "acme"),
    ]
    assert [units(e) for e in events if units(e)] == [[(1, 0)]]
    assert (await totals(served.stage.redis)).calls == 1


async def test_a_call_that_is_left_before_its_answer_costs_nothing(served: Metered) -> None:
    replica = served.stage.replica
    replica.gate.clear()
    call = served.stub.Predict(rows(2), metadata=served.metadata)
    async with asyncio.timeout(5):
        while not replica.requests:
            await asyncio.sleep(0.01)
    call.cancel()
    (event,) = await served.events(1)
    assert (event.reason, event.decision, units(event)) == ("CANCELLED", ALLOWED, [])
    replica.gate.set()
    await served.stub.Predict(rows(1), metadata=served.metadata)
    assert units((await served.events(2))[1]) == [(1, 0)]


async def test_a_call_whose_deadline_passes_costs_nothing(served: Metered) -> None:
    served.stage.replica.gate.clear()
    await refused(served.stub.Predict(rows(2), metadata=served.metadata, timeout=0.2))
    (event,) = await served.events(1)
    assert (event.reason, units(event)) == ("DEADLINE_EXCEEDED", [])


async def test_a_whole_stream_is_billed_once_with_all_its_tokens(served: Metered) -> None:
    served.stage.replica.words = [f"w{n} " for n in range(20)]
    async for _ in served.stub.Generate(STORY, metadata=served.metadata):
        pass
    (event,) = await served.events(1)
    assert (units(event), event.cost_micros, event.reason) == ([(5, 20)], 5 + 200, "")


async def test_streams_cut_at_a_random_token_are_billed_for_what_was_delivered(
    served: Metered,
) -> None:
    replica = served.stage.replica
    replica.words = [f"w{n} " for n in range(40)]
    random.seed(11)
    seen = {}
    for _ in range(12):
        cut = replica.falls_silent_after = random.randrange(1, 39)
        call = served.stub.Generate(STORY, metadata=served.metadata)
        for _ in range(cut):
            assert (await call.read()).delta
        call.cancel()
        seen[dict(await call.initial_metadata())["x-request-id"]] = cut
    events = await served.events(len(seen))
    for event in events:
        assert units(event) == [(5, seen[event.request_id])]
        assert event.cost_micros == 5 + 10 * seen[event.request_id]
        assert event.reason == "CANCELLED"
    assert await totals(served.stage.redis) == billed(events)


async def test_a_stream_whose_replica_breaks_is_billed_for_what_was_delivered(
    served: Metered,
) -> None:
    replica = served.stage.replica
    replica.words = ["a ", "b ", "c "]
    replica.finish_reason = ""
    call = served.stub.Generate(STORY, metadata=served.metadata)
    for _ in replica.words:
        assert (await call.read()).delta
    await refused(call.read())
    (event,) = await served.events(1)
    assert (units(event), event.reason) == ([(5, 3)], "REPLICA_UNAVAILABLE")


def call_of(principal: Principal) -> Call:
    now = time.monotonic()
    call = Call(
        "0" * 32, "/penstock.api.inference.v1.InferenceService/Generate", principal, now, now
    )
    call.model, call.admitted = "story", True
    return call


class Held(Ticket):
    """A ticket that charges one budget by the unit and one by the money."""

    def __init__(self) -> None:
        super().__init__(Plan())

    def spends(self, call: Billed) -> list[tuple[str, int]]:
        assert call.usage is not None
        units = call.usage.output_units
        return [("units", units), ("money", 2 * units), ("nothing", 0)]


async def test_a_stream_writes_what_it_bills_before_each_message(tmp_path: Path) -> None:
    """Also what of its budgets it spends, and digests of all that came and went."""
    (tmp_path / "prices.yaml").write_text("{currency: EUR, prices: [{unit: token, output: 2}]}")
    source = Source.create(tmp_path)
    journal = Journal(source, KEY)
    writer = EventWriter(journal, PriceTable.read(str(tmp_path / "prices.yaml")))
    key = b"the tenant's pseudonym key"
    call = call_of(Principal("acme", "key", frozenset(), pseudonym_key=key))
    call.ticket = Held()
    entry = writer.entry(call.method, call.request_id, call.started)
    entry.call = call
    for piece in (b"first", b"second"):
        entry.received_message(piece)
    assert writer.oldest_needed() == journal.number
    for tokens in (0, 1, 1, 2):
        call.usage = types.Usage(output_units=tokens, unit=types.USAGE_UNIT_TOKEN)
        entry.delivering(b"message")
    call.usage = types.Usage(output_units=3, unit=types.USAGE_UNIT_TOKEN)
    entry.failed(Cancelled())
    await journal.close()
    records = [WriteAheadRecord.FromString(r.payload) for r in read_all(source)]
    assert [r.WhichOneof("kind") for r in records] == ["opened", "progress", "ended"]
    opened, progress, ended = records[0].opened, records[1].progress, records[2].ended
    assert [u.output_units for u in (*opened.usage, *progress.usage, *ended.usage)] == [1, 2, 2]
    assert (progress.event_id, ended.id) == (opened.id, opened.id)
    assert (opened.cost_micros, progress.cost_micros, ended.cost_micros) == (2, 4, 4)
    for spends, expected in ((opened.spends, 1), (progress.spends, 2), (ended.spends, 2)):
        assert [(s.budget, s.amount) for s in spends] == [
            ("units", expected),
            ("money", 2 * expected),
        ]
    assert ended.input_digest == hmac.digest(key, b"firstsecond", "sha256")
    assert ended.output_digest == hmac.digest(key, 4 * b"message", "sha256")
    assert call.usage is not None
    assert call.usage.output_units == 2, "the meter counts what is billed"
    source.release()


async def test_digests_are_the_tenants_and_need_its_key(tmp_path: Path) -> None:
    source = Source.create(tmp_path)
    journal = Journal(source, KEY)
    writer = EventWriter(journal, PriceTable())
    for key in (b"one", b"another", b""):
        call = call_of(Principal("acme", "key", frozenset(), pseudonym_key=key))
        entry = writer.entry(call.method, call.request_id, call.started)
        entry.call = call
        entry.received(b"question")
        entry.answered(b"answer")
    await journal.close()
    ended = [WriteAheadRecord.FromString(r.payload).ended for r in read_all(source)]
    assert [e.input_digest for e in ended] == [
        hmac.digest(b"one", b"question", "sha256"),
        hmac.digest(b"another", b"question", "sha256"),
        b"",
    ]
    assert [e.output_digest for e in ended] == [
        hmac.digest(b"one", b"answer", "sha256"),
        hmac.digest(b"another", b"answer", "sha256"),
        b"",
    ]
    source.release()


async def test_a_tenant_that_asks_for_it_has_its_payloads_kept(tmp_path: Path) -> None:
    source = Source.create(tmp_path / "journals")
    journal = Journal(source, KEY)
    keeper = PayloadKeeper(Objects((tmp_path / "kept").as_uri()), "here", 1_000_000)
    keeper.start()
    writer = EventWriter(journal, PriceTable(), keeper)
    request = pb.GenerateRequest(model="story", prompt="write to anna@example.com")
    for asks in (True, False):
        call = call_of(Principal("acme", "key", frozenset(), audit_payloads=asks))
        entry = writer.entry(call.method, "ab" * 16 if asks else "cd" * 16, call.started)
        entry.made_by(call)
        entry.received(request.SerializeToString())
        entry.delivering(pb.GenerateResponse(delta="done").SerializeToString())
        entry.ended()
    await keeper.stop()
    await journal.close()
    events = [WriteAheadRecord.FromString(r.payload).ended for r in read_all(source)]
    assert [event.payload_kept for event in events] == [True, False]
    kept = await keeper.read(events[0])
    assert kept is not None
    assert b"anna@example.com" not in kept.input
    assert pb.GenerateRequest.FromString(kept.input).prompt.startswith("write to ")
    assert pb.GenerateResponse.FromString(kept.output).delta == "done"
    assert await keeper.read(events[1]) is None
    source.release()
