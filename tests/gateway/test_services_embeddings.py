"""EmbedStream: groups in flight together, each with its own error, billed as delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import error_details_pb2
from tritonclient.grpc import service_pb2 as oip

from gateway.services.embeddings import MOST_GROUPS_IN_FLIGHT, EmbeddingsService
from gateway.tensors import Tensor, read_bytes
from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import InvalidArgument, ModelNotFound, TaskMismatch
from tests.gateway.answered import floats, ints
from tests.gateway.scripted_replica import Context
from tests.gateway.specs import spec
from tests.gateway.stage import Stage, call_of, staged

MODEL = spec("feature-extraction", name="minilm", labels=(), max_batch=8)


async def embed(request: oip.ModelInferRequest, _: Context) -> oip.ModelInferResponse:
    """Vectors whose first number is the text's length; 'long' is longer than the model reads."""
    texts = read_bytes(Tensor("text", "BYTES", (1,), request.raw_input_contents[0]))
    totals = [300 if text == b"long" else len(text) for text in texts]
    outputs = [
        floats("embedding", [[len(text), 0.0, 0.0, 0.0] for text in texts]),
        ints("tokens", [min(total, 256) for total in totals]),
        ints("total_tokens", totals),
    ]
    response = oip.ModelInferResponse(raw_output_contents=[tensor.data for tensor in outputs])
    for tensor in outputs:
        response.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=[len(texts), *tensor.shape]
        )
    return response


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with staged(redis_url) as ready:
        ready.replica.script = embed
        await ready.serve(MODEL, spec("text-classification", name="intent"))
        yield ready


async def groups(*requests: pb.EmbedStreamRequest) -> AsyncIterator[pb.EmbedStreamRequest]:
    for request in requests:
        yield request


async def test_every_group_is_answered_and_the_last_message_is_the_bill(stage: Stage) -> None:
    call = call_of()
    requests = [
        pb.EmbedStreamRequest(
            model="minilm" if not number else "",
            options=pb.EmbedOptions(normalize=False) if not number else None,
            group_id=str(number),
            texts=["x" * (number + 1)] * 20,
        )
        for number in range(12)
    ]
    service = EmbeddingsService(stage.dispatch)
    answers = [answer async for answer in service.EmbedStream(groups(*requests), call)]
    last = answers.pop()
    assert sorted(int(answer.group_id) for answer in answers) == list(range(12))
    for answer in answers:
        assert len(answer.embeddings) == 20
        assert {one.values[0] for one in answer.embeddings} == {int(answer.group_id) + 1}
        assert not answer.HasField("metadata")
    tokens = 20 * sum(range(1, 13))
    assert last.metadata.usage.input_units == tokens
    assert last.metadata.usage.unit == metadata_pb2.USAGE_UNIT_TOKEN
    assert (last.metadata.model, last.metadata.model_version) == ("minilm", "1")
    assert last.metadata.replica == "r1"
    assert call.usage is not None
    assert call.usage.input_units == tokens


async def test_one_groups_error_is_its_own(stage: Stage) -> None:
    requests = [
        pb.EmbedStreamRequest(model="minilm", group_id="a", texts=["ok"]),
        pb.EmbedStreamRequest(group_id="b", texts=["ok", ""]),
        pb.EmbedStreamRequest(group_id="c", texts=["ok", "long"]),
        pb.EmbedStreamRequest(group_id="d", texts=["ok"], model="intent"),
        pb.EmbedStreamRequest(group_id="e", texts=["okay"]),
    ]
    call = call_of()
    stream = EmbeddingsService(stage.dispatch).EmbedStream(groups(*requests), call)
    answers = {answer.group_id: answer async for answer in stream}
    expected = {
        "b": ("FIELD_INVALID", "texts[1]"),
        "c": ("INPUT_TOO_LONG", "texts[1]"),
        "d": ("FIELD_INVALID", "model"),
    }
    for name, (reason, field) in expected.items():
        status = answers[name].error
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(bad)
        assert (info.reason, bad.field_violations[0].field) == (reason, field)
        assert not answers[name].embeddings
    assert len(answers["a"].embeddings) == len(answers["e"].embeddings) == 1
    assert call.usage is not None
    assert call.usage.input_units == len("ok") + len("okay")


async def test_groups_are_in_flight_together_up_to_the_bound(stage: Stage) -> None:
    stage.replica.gate.clear()
    asked = 0

    async def many() -> AsyncIterator[pb.EmbedStreamRequest]:
        nonlocal asked
        for number in range(40):
            asked = number
            yield pb.EmbedStreamRequest(model="minilm", group_id=str(number), texts=["x"] * 8)

    stream = EmbeddingsService(stage.dispatch).EmbedStream(many(), call_of())
    first = asyncio.ensure_future(anext(stream))
    async with asyncio.timeout(10):
        while len(stage.replica.requests) < MOST_GROUPS_IN_FLIGHT:
            await asyncio.sleep(0.01)
    assert asked <= MOST_GROUPS_IN_FLIGHT
    stage.replica.gate.set()
    await first
    assert len([answer async for answer in stream]) == 40


async def test_a_stream_left_early_is_billed_for_what_was_delivered(stage: Stage) -> None:
    call = call_of()
    requests = [
        pb.EmbedStreamRequest(model="minilm", group_id=str(n), texts=["four"]) for n in range(5)
    ]
    stream = EmbeddingsService(stage.dispatch).EmbedStream(groups(*requests), call)
    await anext(stream)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert call.usage is not None
    assert call.usage.input_units == 8


@pytest.mark.parametrize(
    ("opening", "error"),
    [
        (pb.EmbedStreamRequest(texts=["x"]), InvalidArgument),
        (
            pb.EmbedStreamRequest(model="minilm", options=pb.EmbedOptions(dimensions=5)),
            InvalidArgument,
        ),
        (pb.EmbedStreamRequest(model="nope", texts=["x"]), ModelNotFound),
        (pb.EmbedStreamRequest(model="intent", texts=["x"]), TaskMismatch),
    ],
)
async def test_an_opening_that_cannot_be_served_ends_the_stream(
    stage: Stage, opening: pb.EmbedStreamRequest, error: type[Exception]
) -> None:
    stream = EmbeddingsService(stage.dispatch).EmbedStream(groups(opening), call_of())
    with pytest.raises(error):
        await anext(stream)
    assert not stage.replica.requests


async def test_a_stream_without_messages_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidArgument):
        await anext(EmbeddingsService(stage.dispatch).EmbedStream(groups(), call_of()))
