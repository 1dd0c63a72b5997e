"""Payloads: for those who ask, where they may be, redacted, and never at a caller's cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.calls import Principal
from gateway.payloads import PayloadKeeper
from gateway.redaction import BLACK
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.errors import DependencyUnavailable
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service.objects import Objects

METHOD = "/penstock.api.inference.v1.InferenceService/Classify"
GENERATE = "/penstock.api.inference.v1.InferenceService/Generate"
ASKING = Principal("acme", "key", frozenset({"*"}), audit_payloads=True)
REQUEST = pb.ClassifyRequest(model="m", texts=["ada@example.com is angry"]).SerializeToString()
ANSWER = pb.ClassifyResponse().SerializeToString()


def ended(number: int = 1, method: str = METHOD, tenant: str = "acme") -> CallEvent:
    """A call of 2026-09-21."""
    at = 1_790_000_000_000_000
    return CallEvent(id=f"evt_{number}", started_us=at, method=method, tenant=tenant)


def offer(
    keeper: PayloadKeeper,
    event: CallEvent,
    inputs: Sequence[bytes] = (REQUEST,),
    outputs: Sequence[bytes] = (ANSWER,),
    who: Principal = ASKING,
) -> bool:
    """What the pipeline does with a call; whether it will be kept."""
    messages = keeper.collect(who)
    if messages is None:
        return False
    for message in inputs:
        messages.received(message)
    for message in outputs:
        messages.answered(message)
    return keeper.offer(event, messages)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects((tmp_path / "kept").as_uri())


@pytest.fixture
async def keeper(objects: Objects) -> AsyncIterator[PayloadKeeper]:
    keeper = PayloadKeeper(objects, "here", 10_000)
    keeper.start()
    yield keeper
    await keeper.stop()


async def test_a_kept_payload_is_redacted_and_found_again(
    keeper: PayloadKeeper, objects: Objects
) -> None:
    assert offer(keeper, ended())
    await keeper.stop()
    assert await objects.names("payloads") == ["payloads/acme/2026-09-21/evt_1"]
    kept = await keeper.read(ended())
    assert kept is not None
    assert list(pb.ClassifyRequest.FromString(kept.input).texts) == [f"{BLACK} is angry"]
    assert await keeper.read(ended(2)) is None


async def test_an_address_that_a_stream_brought_in_two_pieces_is_blacked_out(
    keeper: PayloadKeeper,
) -> None:
    pieces = ["write to ada@exam", "ple.com", " now"]
    parts = [pb.GenerateResponse(delta=piece).SerializeToString() for piece in pieces]
    assert offer(keeper, ended(method=GENERATE), [], parts)
    await keeper.stop()
    kept = await keeper.read(ended())
    assert kept is not None
    assert pb.GenerateResponse.FromString(kept.output).delta == f"write to {BLACK} now"


async def test_nothing_is_kept_of_those_who_do_not_ask(keeper: PayloadKeeper) -> None:
    silent = replace(ASKING, audit_payloads=False)
    assert not offer(keeper, ended(), who=silent)
    assert keeper.dropped == 0


async def test_nothing_is_kept_outside_the_tenants_regions(keeper: PayloadKeeper) -> None:
    abroad = replace(ASKING, regions=frozenset({"elsewhere"}))
    assert not offer(keeper, ended(), who=abroad)
    at_home = replace(ASKING, regions=frozenset({"elsewhere", "here"}))
    assert offer(keeper, ended(), who=at_home)


async def test_what_does_not_fit_is_dropped_and_counted(keeper: PayloadKeeper) -> None:
    assert not offer(keeper, ended(), [b"x" * 6_000], [b"y" * 6_000])
    assert not offer(keeper, ended(2, tenant="../up"))
    assert keeper.dropped == 2


async def test_a_full_queue_drops_without_waiting(objects: Objects) -> None:
    keeper = PayloadKeeper(objects, "here", 10_000)
    taken = [offer(keeper, ended(n)) for n in range(1005)]
    assert taken.count(True) == 1000
    assert keeper.dropped == 5
    keeper.start()
    await keeper.stop()
    assert len(await objects.names("payloads")) == 1000


async def test_a_store_that_fails_costs_the_payload_and_nothing_else(
    keeper: PayloadKeeper, monkeypatch: pytest.MonkeyPatch, objects: Objects
) -> None:
    put = Objects.put

    async def fails(self: Objects, path: str, data: bytes) -> None:
        if path.endswith("evt_1"):
            raise DependencyUnavailable("the disk is full")
        await put(self, path, data)

    monkeypatch.setattr(Objects, "put", fails)
    assert offer(keeper, ended())
    assert offer(keeper, ended(2))
    await keeper.stop()
    assert keeper.dropped == 1
    assert await objects.names("payloads") == ["payloads/acme/2026-09-21/evt_2"]


async def test_without_an_address_nothing_is_kept() -> None:
    keeper = PayloadKeeper(None, "here", 10_000)
    assert not offer(keeper, ended())
    await asyncio.wait_for(keeper.stop(), 5)
