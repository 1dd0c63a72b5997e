"""Calls that are bound to regions: answered there or not at all, and never left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.calls import Call
from gateway.catalog import Target
from gateway.dispatch import Answer
from gateway.tensors import Tensor
from penstock.errors import NoReplica
from tests.gateway.scripted_replica import floats
from tests.gateway.specs import spec
from tests.gateway.stage import Stage, call_of, staged

INSTANCES = 8
"""Of the stage's replica."""


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with staged(redis_url) as stage:
        await stage.serve(spec("tabular-regression", name="echo", max_batch=1))
        yield stage


def bound(*regions: str) -> Call:
    call = call_of()
    call.principal = replace(call.principal, regions=frozenset(regions))
    return call


async def infer(stage: Stage, call: Call, value: float = 1.0) -> Answer:
    target: Target = stage.dispatch.resolve("echo", "", frozenset(), call)
    return await stage.dispatch.infer(
        target, 1, [Tensor("features", "FP32", (1,), floats([value]))], call
    )


async def test_a_call_is_answered_in_its_regions(stage: Stage) -> None:
    call = bound("here", "elsewhere")
    assert (await infer(stage, call)).region == "here"
    assert call.region == "here"


async def test_a_call_whose_regions_have_no_replica_is_refused_and_told_why(stage: Stage) -> None:
    with pytest.raises(NoReplica, match="elsewhere") as caught:
        await infer(stage, bound("elsewhere"))
    assert caught.value.metadata == {"model": "echo", "regions": "elsewhere"}
    assert stage.replica.requests == []


async def test_a_stream_is_not_opened_outside_its_regions(stage: Stage) -> None:
    call = bound("elsewhere")
    target = stage.dispatch.resolve("echo", "", frozenset(), call)
    with pytest.raises(NoReplica, match="elsewhere"):
        await anext(stage.dispatch.stream(target, [], call))
    assert stage.replica.streams == []


async def test_bound_and_free_calls_take_turns_at_a_busy_replica(stage: Stage) -> None:
    # Which would come back to every lane after each reading of the registry.
    await stage.catalog.stop()
    stage.replica.gate.clear()
    free = [asyncio.create_task(infer(stage, call_of())) for _ in range(3 * INSTANCES)]
    async with asyncio.timeout(10):
        while len(stage.replica.requests) < INSTANCES:
            await asyncio.sleep(0.005)
    late = [asyncio.create_task(infer(stage, bound("here"))) for _ in range(INSTANCES)]
    await asyncio.sleep(0)
    stage.replica.gate.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*free, *late)
