"""Merging calls: what leaves together, who is answered, who is dropped."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from gateway.calls import Call, Principal
from gateway.coalescing import Lane
from gateway.routing import Router
from gateway.tensors import Tensor, bytes_tensor, read_bytes, read_floats
from gateway.waiting import Part
from penstock.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NoReplica,
    Overloaded,
    ReplicaUnavailable,
)
from penstock.service.registry import ReplicaRecord, ServedModel
from tests.gateway.scripted_replica import Context, ScriptedReplica, doubled, floats

MODEL = "echo--1"
PRINCIPAL = Principal("acme", "key", frozenset({"*"}), 1)

Ask = Callable[..., Awaitable[Part]]


def a_call(seconds: float = 30.0) -> Call:
    now = time.monotonic()
    return Call("request", "/test/Method", PRINCIPAL, now, now + seconds)


def rows_of(*values: float) -> list[Tensor]:
    return [Tensor("features", "FP32", (1,), floats(list(values)))]


def record(replica: ScriptedReplica, name: str = "r1", region: str = "here") -> ReplicaRecord:
    served = ServedModel(name="echo", version="1", triton_name=MODEL, instances=1, max_batch=8)
    return ReplicaRecord(id=name, endpoint=replica.endpoint, region=region, models=(served,))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def replica() -> AsyncIterator[ScriptedReplica]:
    scripted = ScriptedReplica()
    await scripted.server.start()
    yield scripted
    scripted.gate.set()
    await scripted.server.stop(None)


@pytest.fixture
async def other() -> AsyncIterator[ScriptedReplica]:
    scripted = ScriptedReplica()
    await scripted.server.start()
    yield scripted
    scripted.gate.set()
    await scripted.server.stop(None)


@pytest.fixture
async def router(replica: ScriptedReplica) -> AsyncIterator[Router]:
    routed = Router("here")
    routed.update([record(replica)])
    yield routed
    await routed.close()


@pytest.fixture
def lane(router: Router) -> Lane:
    return Lane("echo", MODEL, 8, router)


def submit(lane: Lane, *values: float, seconds: float = 30.0, tier: int = 2) -> asyncio.Task[Part]:
    return asyncio.create_task(lane.submit(len(values), rows_of(*values), a_call(seconds), tier))


async def hold(lane: Lane, replica: ScriptedReplica) -> asyncio.Task[Part]:
    """Fills the one call that the replica runs, so that what comes next must wait."""
    replica.gate.clear()
    before = len(replica.requests)
    held = submit(lane, 100.0)
    await until(lambda: len(replica.requests) == before + 1)
    return held


async def test_an_idle_replica_gets_a_call_at_once(lane: Lane, replica: ScriptedReplica) -> None:
    part = await lane.submit(2, rows_of(1.0, 2.0), a_call(), 2)
    assert list(read_floats(part.outputs[0])) == [2.0, 4.0]
    assert replica.rows() == [2]


async def test_waiting_calls_leave_as_one_and_each_gets_its_own_rows(
    lane: Lane, replica: ScriptedReplica
) -> None:
    held = await hold(lane, replica)
    waiting = [submit(lane, *[float(n)] * n) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    replica.gate.set()
    answers = [list(read_floats((await task).outputs[0])) for task in waiting]
    assert answers == [[2.0], [4.0, 4.0], [6.0, 6.0, 6.0]]
    await held
    assert replica.rows() == [1, 6]


async def test_a_merged_call_never_has_more_rows_than_the_model_takes(
    lane: Lane, replica: ScriptedReplica
) -> None:
    held = await hold(lane, replica)
    waiting = [submit(lane, 1.0, 2.0, 3.0) for _ in range(7)]
    await asyncio.sleep(0)
    replica.gate.set()
    await asyncio.gather(held, *waiting)
    assert sum(replica.rows()) == 1 + 21
    assert max(replica.rows()) == 6


def texts_of(*lengths: int) -> list[Tensor]:
    return [bytes_tensor("text", [b"x" * length for length in lengths])]


async def teach_speed(lane: Lane, replica: ScriptedReplica, length: int) -> None:
    """Lets the lane see a text of that length take 0.1 s, so that it merges little more."""

    async def slowly(request: Any, context: Context) -> Any:
        await asyncio.sleep(0.1)
        return lengths_answered(request)

    replica.script = slowly
    await lane.submit(1, texts_of(length), a_call(), 2)

    async def at_once(request: Any, context: Context) -> Any:
        return lengths_answered(request)

    replica.script = at_once


def lengths_answered(request: Any) -> Any:
    rows = request.inputs[0].shape[0]
    request.inputs[0].shape[:] = [rows, 1]
    request.raw_input_contents[:] = [floats([0.0] * rows)]
    return doubled(request)


async def batches_of_waiting_texts(
    lane: Lane, replica: ScriptedReplica, lengths: list[int], tier: int, fits: int
) -> list[list[int]]:
    """The lengths in each call that the replica gets when all these texts had to wait."""
    await teach_speed(lane, replica, fits)
    sent: list[list[int]] = []

    async def noted(request: Any, context: Context) -> Any:
        data = Tensor("text", "BYTES", (1,), request.raw_input_contents[0])
        sent.append([len(text) for text in read_bytes(data)])
        return lengths_answered(request)

    replica.script = noted
    replica.gate.clear()
    # A model whose calls are long has one call waiting at the replica besides the one that runs.
    held = []
    for count in (2, 3):
        held.append(asyncio.create_task(lane.submit(1, texts_of(400), a_call(), tier)))
        await until(lambda count=count: len(replica.requests) == count)  # type: ignore[misc]
    waiting = []
    for length in lengths:
        waiting.append(asyncio.create_task(lane.submit(1, texts_of(length), a_call(), tier)))
        await asyncio.sleep(0)
    replica.gate.set()
    await asyncio.gather(*held, *waiting)
    return sent[2:]


async def test_texts_of_like_length_leave_together_where_not_all_fit(
    lane: Lane, replica: ScriptedReplica
) -> None:
    batches = await batches_of_waiting_texts(lane, replica, [20, 200, 21, 190, 22, 195], 3, 100)
    assert sorted(batches[0]) == [20, 21, 22]
    assert batches[1] == [200], "the longest waiting text is next, whatever its length"


@pytest.mark.parametrize(("tier", "together"), [(2, 3), (3, 1)])
async def test_a_backlog_is_merged_into_larger_calls_but_not_in_the_tiers_that_use_slack(
    lane: Lane, replica: ScriptedReplica, tier: int, together: int
) -> None:
    batches = await batches_of_waiting_texts(lane, replica, [20] * 8, tier, 20)
    assert len(batches[0]) == together


async def test_the_urgent_tier_leaves_first_and_tiers_do_not_mix(
    lane: Lane, replica: ScriptedReplica
) -> None:
    held = await hold(lane, replica)
    slow = [submit(lane, 1.0, 2.0, tier=3) for _ in range(2)]
    await asyncio.sleep(0)
    urgent = submit(lane, 7.0, tier=1)
    await asyncio.sleep(0)
    replica.gate.set()
    await asyncio.gather(held, *slow, urgent)
    assert replica.rows() == [1, 1, 4]


async def test_one_bad_member_of_a_merged_call_fails_alone(
    lane: Lane, replica: ScriptedReplica
) -> None:
    async def refuse_13(request: Any, context: Context) -> Any:
        values = struct.unpack(f"<{request.inputs[0].shape[0]}f", request.raw_input_contents[0])
        if 13.0 in values:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "/secret/path: thirteen")
        return doubled(request)

    replica.script = refuse_13
    held = await hold(lane, replica)
    waiting = [submit(lane, value) for value in (1.0, 13.0, 2.0)]
    await asyncio.sleep(0)
    replica.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await held
    assert isinstance(answers[1], InvalidArgument)
    assert "secret" not in str(answers[1])
    for answer, expected in ((answers[0], 2.0), (answers[2], 4.0)):
        assert isinstance(answer, Part)
        assert list(read_floats(answer.outputs[0])) == [expected]


async def test_a_member_that_leaves_before_sending_is_not_sent(
    lane: Lane, replica: ScriptedReplica
) -> None:
    held = await hold(lane, replica)
    leaver, stayer = submit(lane, 1.0), submit(lane, 2.0)
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    replica.gate.set()
    assert list(read_floats((await stayer).outputs[0])) == [4.0]
    await held
    assert replica.rows() == [1, 1]


async def test_the_call_is_cancelled_when_its_last_member_has_left(
    lane: Lane, replica: ScriptedReplica
) -> None:
    held = await hold(lane, replica)
    held.cancel()
    await until(lambda: replica.cancelled == 1)
    replica.gate.set()
    assert list(read_floats((await lane.submit(1, rows_of(5.0), a_call(), 2)).outputs[0])) == [10.0]


async def test_a_member_whose_deadline_passes_does_not_take_others_along(
    lane: Lane, replica: ScriptedReplica
) -> None:
    held = await hold(lane, replica)
    short, long = submit(lane, 1.0, seconds=0.2), submit(lane, 2.0)
    with pytest.raises(DeadlineExceeded):
        await short
    replica.gate.set()
    assert list(read_floats((await long).outputs[0])) == [4.0]
    await held


async def test_a_deadline_that_passes_just_before_sending_leaves_no_call_counted(
    lane: Lane, router: Router, replica: ScriptedReplica
) -> None:
    for _ in range(3):
        hurried = submit(lane, 1.0, seconds=0.01)
        await asyncio.sleep(0)
        time.sleep(0.02)  # noqa: ASYNC251 - the loop's next turn finds pump and deadline both due
        with pytest.raises(DeadlineExceeded):
            await hurried
    assert len(replica.requests) == 0
    part = await lane.submit(1, rows_of(2.0), a_call(5.0), 2)
    assert list(read_floats(part.outputs[0])) == [4.0]


async def test_a_lost_replica_s_calls_are_answered_by_another(
    replica: ScriptedReplica, other: ScriptedReplica, router: Router, lane: Lane
) -> None:
    await replica.server.stop(None)
    router.update([record(replica), record(other, "r2")])
    answers = await asyncio.gather(*[submit(lane, float(n)) for n in range(20)])
    assert [list(read_floats(part.outputs[0])) for part in answers] == [
        [2.0 * n] for n in range(20)
    ]
    assert {part.replica for part in answers} == {"r2"}


async def test_a_lost_replica_without_another_is_unavailable_with_a_hint(
    replica: ScriptedReplica, lane: Lane
) -> None:
    await replica.server.stop(None)
    with pytest.raises(ReplicaUnavailable) as caught:
        await lane.submit(1, rows_of(1.0), a_call(), 2)
    assert caught.value.retry_after_seconds


async def test_a_model_that_nobody_serves_is_refused_at_once(router: Router) -> None:
    lane = Lane("other", "other--1", 8, router)
    with pytest.raises(NoReplica):
        await lane.submit(1, rows_of(1.0), a_call(), 2)


async def test_a_call_that_would_wait_past_its_deadline_is_refused_at_once(
    lane: Lane, replica: ScriptedReplica
) -> None:
    async def slowly(request: Any, context: Context) -> Any:
        await asyncio.sleep(0.2)
        return doubled(request)

    replica.script = slowly
    await lane.submit(1, rows_of(1.0), a_call(), 2)
    held = await hold(lane, replica)
    waiting = [submit(lane, *[1.0] * 8) for _ in range(4)]
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(Overloaded) as caught:
        await lane.submit(1, rows_of(1.0), a_call(0.5), 2)
    assert time.monotonic() - began < 0.4
    assert (caught.value.retry_after_seconds or 0) > 0.5
    replica.gate.set()
    await asyncio.gather(held, *waiting)
