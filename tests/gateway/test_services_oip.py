"""The Open Inference Protocol between a real dispatch and a scripted replica."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tritonclient.grpc import service_pb2 as oip

from gateway.services.oip import FINAL, OpenInferenceService
from gateway.tensors import bytes_tensor
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import InvalidArgument, ModelNotFound, TaskMismatch, VersionNotFound
from tests.gateway.scripted_replica import Context, doubled, floats
from tests.gateway.specs import spec
from tests.gateway.stage import Stage, call_of, staged

ECHO = spec("tabular-regression", name="echo", labels=(), features=({"name": "x"},))
STORIES = spec("text-generation", name="storyteller", labels=())


async def double(request: oip.ModelInferRequest, _: Context) -> oip.ModelInferResponse:
    return doubled(request)


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with staged(redis_url) as ready:
        ready.replica.script = double
        await ready.serve(ECHO, STORIES)
        yield ready


@pytest.fixture
def service(stage: Stage) -> OpenInferenceService:
    return OpenInferenceService(stage.dispatch, stage.catalog)


def echo(*values: float, name: str = "", version: str = "") -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="echo", model_version=version, id=name)
    request.inputs.add(name="features", datatype="FP32", shape=[len(values), 1])
    request.raw_input_contents.append(floats(list(values)))
    return request


def story(name: str = "") -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="storyteller", id=name)
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(bytes_tensor("text_input", [b"Once"]).data)
    return request


async def stream_of(*requests: oip.ModelInferRequest) -> AsyncIterator[oip.ModelInferRequest]:
    for request in requests:
        yield request


async def test_a_model_is_run_under_its_own_name(
    service: OpenInferenceService, stage: Stage
) -> None:
    call = call_of()
    answer = await service.ModelInfer(echo(1.5, -2.0, name="7"), call)
    assert (answer.model_name, answer.model_version, answer.id) == ("echo", "1", "7")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("value", "FP32", [2, 1])
    assert list(answer.raw_output_contents) == [floats([3.0, -4.0])]
    assert stage.replica.requests[0].model_name == "echo--1"
    assert call.usage == metadata_pb2.Usage(input_units=2, unit=metadata_pb2.USAGE_UNIT_ROW)


async def test_the_version_is_honoured(service: OpenInferenceService) -> None:
    assert (await service.ModelInfer(echo(1.0, version="1"), call_of())).model_version == "1"
    with pytest.raises(VersionNotFound):
        await service.ModelInfer(echo(1.0, version="2"), call_of())


async def test_what_is_not_served_this_way_is_refused_before_the_replica(
    service: OpenInferenceService, stage: Stage
) -> None:
    torn = echo(1.0)
    torn.raw_input_contents[0] += b"x"
    with pytest.raises(InvalidArgument):
        await service.ModelInfer(torn, call_of())
    with pytest.raises(TaskMismatch):
        await service.ModelInfer(story(), call_of())
    with pytest.raises(ModelNotFound):
        await service.ModelInfer(echo(1.0), call_of("storyteller"))
    assert not stage.replica.requests


async def test_readiness_tells_only_of_models_that_the_key_may_use(
    service: OpenInferenceService, stage: Stage
) -> None:
    async def ready(name: str, version: str, *models: str) -> bool:
        request = oip.ModelReadyRequest(name=name, version=version)
        return bool((await service.ModelReady(request, call_of(*models))).ready)

    assert await ready("echo", "")
    assert await ready("echo", "1")
    assert not await ready("echo", "2")
    assert not await ready("nope", "")
    assert not await ready("echo", "", "storyteller")
    assert (await service.ServerReady(oip.ServerReadyRequest(), call_of())).ready
    assert not (await service.ServerReady(oip.ServerReadyRequest(), call_of("nope"))).ready


async def test_metadata_is_the_signature(service: OpenInferenceService) -> None:
    found = await service.ModelMetadata(oip.ModelMetadataRequest(name="echo"), call_of())
    assert (found.name, list(found.versions), found.platform) == ("echo", ["1"], "transformers")
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [
        ("features", "FP32", [-1, 1])
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in found.outputs] == [
        ("value", "FP32", [-1, 1])
    ]
    found = await service.ModelMetadata(oip.ModelMetadataRequest(name="storyteller"), call_of())
    assert (found.inputs[0].name, list(found.inputs[0].shape)) == ("text_input", [1])
    with pytest.raises(ModelNotFound):
        await service.ModelMetadata(oip.ModelMetadataRequest(name="echo"), call_of("other"))


async def test_a_stream_answers_in_order_and_a_bad_request_spoils_nothing(
    service: OpenInferenceService,
) -> None:
    requests = [echo(float(number), name=str(number)) for number in range(30)]
    del requests[11].inputs[:]
    requests[12].model_name = "storyteller"
    call = call_of()
    answers = [a async for a in service.ModelStreamInfer(stream_of(*requests), call)]
    assert [int(answer.infer_response.id) for answer in answers] == list(range(30))
    assert answers[11].error_message.startswith("inputs: is empty")
    assert answers[12].error_message == "model_name: is not the stream's first, 'echo'"
    assert answers[10].infer_response.raw_output_contents[0] == floats([20.0])
    assert answers[10].infer_response.parameters[FINAL].bool_param
    assert call.usage == metadata_pb2.Usage(input_units=28, unit=metadata_pb2.USAGE_UNIT_ROW)


async def test_stories_are_streamed_one_after_another(
    service: OpenInferenceService, stage: Stage
) -> None:
    stage.replica.words = ["Once", " more"]
    call = call_of()
    stream = service.ModelStreamInfer(stream_of(story("a"), story("b")), call)
    seen = []
    async for answer in stream:
        response = answer.infer_response
        assert (response.outputs[0].name, list(response.outputs[0].shape)) == ("text_output", [1])
        word = response.raw_output_contents[0][4:].decode()
        seen.append((response.id, word, response.parameters[FINAL].bool_param))
    assert seen == [
        ("a", "Once", False),
        ("a", " more", True),
        ("b", "Once", False),
        ("b", " more", True),
    ]
    assert call.usage == metadata_pb2.Usage(
        input_units=10, output_units=4, unit=metadata_pb2.USAGE_UNIT_TOKEN
    )


async def test_a_refused_story_says_so_in_the_stream(service: OpenInferenceService) -> None:
    broken = story("a")
    broken.inputs[0].name = "prompt"
    (answer,) = [a async for a in service.ModelStreamInfer(stream_of(broken), call_of())]
    assert answer.infer_response.id == "a"
    assert "'prompt' is not one of" in answer.error_message
