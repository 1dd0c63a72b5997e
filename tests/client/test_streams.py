"""Generate and EmbedStream: pieces, results, early leaves and failures in the middle."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from penstock import AsyncClient, Client, errors
from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.service.rpc import status_of
from tests.client.scripted import Context, Scripted

WORDS = ["Once ", "upon ", "a time"]


def story(_: Any, __: Context) -> Iterator[inference.GenerateResponse]:
    """A whole generation."""
    for text in WORDS:
        yield inference.GenerateResponse(delta=text)
    last = inference.GenerateResponse(finish_reason=inference.FINISH_REASON_STOP)
    last.metadata.usage.output_units = 3
    yield last


def endless(_: Any, context: Context) -> Iterator[inference.GenerateResponse]:
    """A generation that only a cancel ends."""
    ended = threading.Event()
    context.add_callback(ended.set)
    while not ended.wait(0.002):
        yield inference.GenerateResponse(delta="and ")


def breaking(_: Any, context: Context) -> Iterator[inference.GenerateResponse]:
    """A generation whose replica goes away after the first piece."""
    yield inference.GenerateResponse(delta="Once ")
    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


def test_pieces_come_one_by_one_and_make_up_the_result(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Generate"] = story
    stream = client.generate("m", "x")
    assert list(stream) == WORDS
    assert stream.result().text == "Once upon a time"
    assert stream.result().finish_reason == "stop"
    assert stream.result().metadata.usage.output_units == 3


def test_the_result_can_be_had_at_once(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Generate"] = story
    assert client.generate("m", "x").result().text == "Once upon a time"


async def test_pieces_come_asynchronously_too(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["Generate"] = story
    stream = async_client.generate("m", "x")
    assert [piece async for piece in stream] == WORDS
    assert (await stream.result()).finish_reason == "stop"


def test_leaving_the_loop_cancels_the_call(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Generate"] = endless
    stream = client.generate("m", "x")
    for piece in stream:
        assert piece == "and "
        break
    assert scripted.ended.wait(5)
    with pytest.raises(errors.Cancelled):
        stream.result()


async def test_leaving_an_asynchronous_loop_cancels_the_call(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["Generate"] = endless
    stream = async_client.generate("m", "x")
    async for piece in stream:
        assert piece == "and "
        break
    assert await asyncio.to_thread(scripted.ended.wait, 5)
    with pytest.raises(errors.Cancelled):
        await stream.result()


async def test_the_end_of_a_with_block_cancels_the_call(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["Generate"] = endless
    async with async_client.generate("m", "x") as stream:
        assert await anext(aiter(stream)) == "and "
    assert await asyncio.to_thread(scripted.ended.wait, 5)


async def test_cancelling_the_reading_task_cancels_the_call(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["Generate"] = endless
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in async_client.generate("m", "x"):
            begun.set()

    task = asyncio.ensure_future(read())
    await asyncio.wait_for(begun.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(scripted.ended.wait, 5)


def test_a_failure_in_the_middle_is_not_tried_again(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Generate"] = breaking
    pieces: list[str] = []
    with pytest.raises(errors.Unavailable, match="gone"):
        pieces.extend(client.generate("m", "x"))
    assert pieces == ["Once "]
    assert len(scripted.requests) == 1


def test_a_failure_before_the_first_piece_is_tried_again(
    client: Client, scripted: Scripted
) -> None:
    calls = [0]

    def behave(request: Any, context: Context) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return story(request, context)

    scripted.behaviours["Generate"] = behave
    assert client.generate("m", "x").result().text == "Once upon a time"
    assert calls == [2]


def test_a_silent_stream_ends_at_its_deadline(client: Client, scripted: Scripted) -> None:
    def silent(_: Any, context: Context) -> Iterator[inference.GenerateResponse]:
        yield inference.GenerateResponse(delta="Once ")
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(5)

    scripted.behaviours["Generate"] = silent
    with pytest.raises(errors.DeadlineExceeded):
        client.generate("m", "x", timeout=0.2).result()


def embedded(
    requests: Iterator[embeddings.EmbedStreamRequest], _: Context
) -> Iterator[embeddings.EmbedStreamResponse]:
    """A vector a text: its length; groups named bad fail."""
    for number, request in enumerate(requests):
        assert (request.model == "m") == (number == 0)
        response = embeddings.EmbedStreamResponse(group_id=request.group_id)
        if request.group_id == "bad":
            response.error.CopyFrom(status_of(errors.InputTooLong("too long")))
        for text in request.texts:
            response.embeddings.add(values=[len(text)], tokens=len(text))
        yield response
    last = embeddings.EmbedStreamResponse()
    last.metadata.usage.input_units = 9
    yield last


def test_groups_are_embedded_each_with_its_own_fate(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["EmbedStream"] = embedded
    stream = client.embed_stream("m", ((name, ["aa", "b"]) for name in ("one", "two")))
    groups = {group.group_id: list(group.embeddings) for group in stream}
    assert groups == {"one": [[2.0], [1.0]], "two": [[2.0], [1.0]]}
    assert stream.result().usage.input_units == 9
    (bad,) = client.embed_stream("m", [("bad", [])])
    assert isinstance(bad.error, errors.InputTooLong)
    assert len(bad.embeddings) == 0


async def test_an_asynchronous_source_feeds_an_asynchronous_stream(
    async_client: AsyncClient, client: Client, scripted: Scripted
) -> None:
    scripted.behaviours["EmbedStream"] = embedded

    async def source() -> AsyncIterator[tuple[str, list[str]]]:
        for name in ("one", "two"):
            await asyncio.sleep(0)
            yield name, ["abc"]

    groups = [group async for group in async_client.embed_stream("m", source())]
    assert [(group.group_id, group.embeddings.tokens) for group in groups] == [
        ("one", [3]),
        ("two", [3]),
    ]
    with pytest.raises(TypeError, match="AsyncClient"):
        client.embed_stream("m", source())


class SourceBroke(Exception):
    """The caller's own trouble."""


def test_a_source_that_breaks_says_why(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["EmbedStream"] = embedded

    def source() -> Iterator[tuple[str, list[str]]]:
        yield "one", ["abc"]
        assert scripted.began.wait(5)
        raise SourceBroke("the database went away")

    with pytest.raises(SourceBroke, match="the database went away"):
        client.embed_stream("m", source()).result()
    assert scripted.ended.wait(5)


async def test_an_asynchronous_source_that_breaks_says_why(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["EmbedStream"] = embedded

    async def source() -> AsyncIterator[tuple[str, list[str]]]:
        yield "one", ["abc"]
        assert await asyncio.to_thread(scripted.began.wait, 5)
        raise SourceBroke("the database went away")

    with pytest.raises(SourceBroke, match="the database went away"):
        await async_client.embed_stream("m", source()).result()
    assert await asyncio.to_thread(scripted.ended.wait, 5)
