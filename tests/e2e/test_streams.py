"""Streams through the whole cluster: pieces come as they are made, and a cancel reaches Triton."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest

from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.types.v1 import metadata_pb2
from tests.conftest import Credentials
from tests.e2e.test_families import checked

if TYPE_CHECKING:
    from penstock.api.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceAsyncStub
    from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub


PROMPTS = ("The function", "This module provides", "def", "class", "Create a new", "import")


def story(prompt: str, max_tokens: int) -> inference_pb2.GenerateRequest:
    """A request that always takes the most probable token."""
    sampling = inference_pb2.GenerationParameters(max_tokens=max_tokens, temperature=0.0)
    return inference_pb2.GenerateRequest(model="storyteller", prompt=prompt, parameters=sampling)


@pytest.fixture(scope="module")
async def prompt(inference: InferenceServiceAsyncStub, credentials: Credentials) -> str:
    """A prompt that the model, as it was trained here, goes on about for 400 tokens."""
    for candidate in PROMPTS:
        call = inference.Generate(story(candidate, 400), metadata=credentials)
        if [piece async for piece in call][-1].finish_reason == inference_pb2.FINISH_REASON_LENGTH:
            return candidate
    pytest.fail("the model ends every story early")


async def test_text_comes_in_pieces_and_the_last_one_carries_the_metadata(
    inference: InferenceServiceAsyncStub, credentials: Credentials, prompt: str
) -> None:
    pieces = [piece async for piece in inference.Generate(story(prompt, 60), metadata=credentials)]
    assert len(pieces) > 4
    assert "".join(piece.delta for piece in pieces).strip()
    *earlier, last = pieces
    assert not any(piece.HasField("metadata") for piece in earlier)
    assert last.finish_reason == inference_pb2.FINISH_REASON_LENGTH
    usage = checked(last.metadata, "storyteller").usage
    assert usage.unit == metadata_pb2.USAGE_UNIT_TOKEN
    assert usage.output_units == 60


async def test_streams_that_run_together_say_what_they_say_alone(
    inference: InferenceServiceAsyncStub, credentials: Credentials, prompt: str
) -> None:
    async def text(max_tokens: int) -> str:
        call = inference.Generate(story(prompt, max_tokens), metadata=credentials)
        return "".join([piece.delta async for piece in call])

    alone = await text(20)
    together = await asyncio.gather(*(text(tokens) for tokens in (20, 12, 20, 8)))
    assert together[0] == together[2] == alone
    assert alone.startswith(together[1])


async def test_a_cancelled_stream_ends_and_leaves_room_for_the_next(
    inference: InferenceServiceAsyncStub, credentials: Credentials, prompt: str
) -> None:
    call = inference.Generate(story(prompt, 400), metadata=credentials)
    async for _ in call:
        break
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    assert await call.code() is grpc.StatusCode.CANCELLED
    pieces = [piece async for piece in inference.Generate(story(prompt, 4), metadata=credentials)]
    assert pieces[-1].metadata.usage.output_units == 4


async def test_groups_of_texts_are_embedded_over_one_call(
    embeddings: EmbeddingsServiceAsyncStub, credentials: Credentials
) -> None:
    async def groups() -> AsyncIterator[embeddings_pb2.EmbedStreamRequest]:
        yield embeddings_pb2.EmbedStreamRequest(model="minilm", group_id="a", texts=["one", "two"])
        yield embeddings_pb2.EmbedStreamRequest(group_id="b", texts=["three"])
        yield embeddings_pb2.EmbedStreamRequest(group_id="bad", texts=[])

    answers = [a async for a in embeddings.EmbedStream(groups(), metadata=credentials)]
    by_group = {answer.group_id: answer for answer in answers if answer.group_id}
    assert [len(by_group[group].embeddings) for group in ("a", "b")] == [2, 1]
    assert by_group["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    usage = answers[-1].metadata.usage
    read = sum(e.tokens for answer in by_group.values() for e in answer.embeddings)
    assert usage.input_units == read > 0
