"""InferenceService between a real dispatch and a scripted replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as oip

from gateway.services.inference import InferenceService
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import InvalidArgument, ReplicaUnavailable, TaskMismatch, VersionNotFound
from tests.gateway.scripted_replica import Context
from tests.gateway.specs import spec
from tests.gateway.stage import Stage, call_of, staged

SCORES = spec("tabular-classification", name="fraud", max_batch=64)
STORIES = spec("text-generation", name="storyteller", labels=())
GENERATE = pb.GenerateRequest(model="storyteller", prompt="Once")


async def score(request: oip.ModelInferRequest, _: Context) -> oip.ModelInferResponse:
    """The row's first feature is the second label's probability."""
    rows = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(-1, 3)
    scores = np.zeros((len(rows), 3), dtype="<f4")
    scores[:, 1] = rows[:, 0]
    response = oip.ModelInferResponse(raw_output_contents=[scores.tobytes()])
    response.outputs.add(name="scores", datatype="FP32", shape=scores.shape)
    return response


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with staged(redis_url) as ready:
        ready.replica.script = score
        await ready.serve(SCORES, STORIES)
        yield ready


def matrix_of(first: np.ndarray[tuple[int], np.dtype[np.float32]]) -> pb.PredictRequest:
    rows = np.zeros((len(first), 3), dtype="<f4")
    rows[:, 0] = first
    matrix = pb.FeatureMatrix(rows=len(rows), columns=3, data=rows.tobytes())
    return pb.PredictRequest(model="fraud", matrix=matrix)


async def test_a_row_is_answered_with_its_metadata(stage: Stage) -> None:
    call = call_of()
    request = matrix_of(np.array([0.5], dtype=np.float32))
    answer = await InferenceService(stage.dispatch).Predict(request, call)
    assert [(p.label, p.score) for p in answer.predictions] == [("b", 0.5)]
    metadata = answer.metadata
    assert (metadata.request_id, metadata.model, metadata.model_version) == (
        "request",
        "fraud",
        "1",
    )
    assert (metadata.replica, metadata.region, metadata.confidence) == ("r1", "here", 0.5)
    assert metadata.usage == metadata_pb2.Usage(input_units=1, unit=metadata_pb2.USAGE_UNIT_ROW)
    assert call.usage == metadata.usage


async def test_many_rows_keep_their_order_whatever_calls_they_travel_in(stage: Stage) -> None:
    first = np.linspace(0, 1, 10_000, dtype=np.float32)
    answer = await InferenceService(stage.dispatch).Predict(matrix_of(first), call_of())
    np.testing.assert_array_equal(
        np.array([p.probabilities[1].probability for p in answer.predictions], dtype="f4"), first
    )
    assert answer.metadata.usage.input_units == 10_000
    assert max(stage.replica.rows()) <= SCORES.max_batch


async def test_a_refused_call_is_billed_nothing_and_reaches_no_replica(stage: Stage) -> None:
    service, call = InferenceService(stage.dispatch), call_of()
    with pytest.raises(InvalidArgument):
        await service.Predict(matrix_of(np.array([np.nan], dtype=np.float32)), call)
    with pytest.raises(TaskMismatch):
        await service.Classify(pb.ClassifyRequest(model="fraud", texts=["x"]), call)
    with pytest.raises(VersionNotFound):
        await service.Classify(
            pb.ClassifyRequest(model="fraud", model_version="9", texts=["x"]), call
        )
    assert call.usage is None
    assert not stage.replica.requests


async def test_a_story_is_streamed_and_ends_with_its_bill(stage: Stage) -> None:
    stage.replica.words = ["Once ", "", "upon ", "a time"]
    call = call_of()
    steps = [s async for s in InferenceService(stage.dispatch).Generate(GENERATE, call)]
    assert [step.delta for step in steps] == ["Once ", "upon ", "a time"]
    assert [step.finish_reason for step in steps] == [0, 0, pb.FINISH_REASON_STOP]
    assert [step.HasField("metadata") for step in steps] == [False, False, True]
    assert steps[-1].metadata.usage == metadata_pb2.Usage(
        input_units=5, output_units=4, unit=metadata_pb2.USAGE_UNIT_TOKEN
    )
    assert not steps[-1].metadata.HasField("confidence")


async def test_a_story_left_early_stops_the_model_and_bills_what_was_delivered(
    stage: Stage,
) -> None:
    stage.replica.words = ["word "] * 1_000
    call = call_of()
    stream = InferenceService(stage.dispatch).Generate(GENERATE, call)
    await anext(stream)
    await anext(stream)
    stage.replica.gate.clear()
    await stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        await stage.replica.left.wait()
    assert call.usage is not None
    assert (call.usage.input_units, call.usage.output_units) == (5, 2)


async def test_a_story_that_breaks_off_is_an_error(stage: Stage) -> None:
    stage.replica.words = ["Once "]
    stage.replica.finish_reason = ""
    stream = InferenceService(stage.dispatch).Generate(GENERATE, call_of())
    assert (await anext(stream)).delta == "Once "
    await stage.replica.server.stop(None)
    with pytest.raises(ReplicaUnavailable):
        await anext(stream)
