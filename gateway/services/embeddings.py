"""EmbeddingsService: texts to vectors, in one call or in groups over a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from gateway.adapters.classification import text_tensor
from gateway.adapters.embeddings import TASKS, embeddings
from gateway.adapters.usage import token_count
from gateway.answers import response_metadata
from gateway.calls import Call
from gateway.catalog import Target
from gateway.dispatch import Answer, Dispatch
from gateway.services.pipelining import as_ready
from gateway.services.translation import translated
from gateway.validation.embeddings import (
    check_embed,
    check_embed_fits,
    check_group,
    check_stream_opening,
)
from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import InvalidArgument, PenstockError
from penstock.service.rpc import status_of

MOST_GROUPS_IN_FLIGHT = 8
"""Groups of one stream that are embedded at once; more wait unread."""


class EmbeddingsService:
    """Turns texts into vectors."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def Embed(self, request: pb.EmbedRequest, call: Call) -> pb.EmbedResponse:
        """One vector a text."""
        check_embed(request)
        target = self._dispatch.resolve(request.model, request.model_version, TASKS, call)
        check_embed_fits(request.options, target.spec)
        tensor = text_tensor(request.texts)
        rows = len(request.texts)
        answer = await self._dispatch.infer(target, rows, [tensor], call, tier=request.tier)
        found, usage = await translated(rows, embeddings, answer, target.spec, request.options)
        metadata = response_metadata(target, answer, call, usage)
        return pb.EmbedResponse(embeddings=found, metadata=metadata)

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedStreamRequest], call: Call
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        """Groups of vectors as they are ready, then one message of metadata."""
        opening = await anext(requests, None)
        if opening is None:
            raise InvalidArgument("the stream ended before its first message")
        check_stream_opening(opening)
        target = self._dispatch.resolve(opening.model, opening.model_version, TASKS, call)
        check_embed_fits(opening.options, target.spec)
        stream = _Groups(self._dispatch, target, opening, call)
        groups = as_ready(_chained(opening, requests), stream.answer, MOST_GROUPS_IN_FLIGHT)
        async with aclosing(groups):
            async for response, tokens in groups:
                stream.deliver(tokens)
                yield response
        yield pb.EmbedStreamResponse(metadata=stream.metadata())


class _Groups:
    """What one stream's groups have in common, and what they have used together."""

    def __init__(
        self, dispatch: Dispatch, target: Target, opening: pb.EmbedStreamRequest, call: Call
    ) -> None:
        self._dispatch = dispatch
        self._target = target
        self._opening = opening
        self._call = call
        self._usage = call.usage = token_count(0)
        self._slowest = Answer({}, "", "", 0.0, 0.0)

    async def answer(self, request: pb.EmbedStreamRequest) -> tuple[pb.EmbedStreamResponse, int]:
        """The answer to one group, or its error, and the tokens to bill once it is delivered."""
        response = pb.EmbedStreamResponse(group_id=request.group_id)
        try:
            check_group(request, self._opening)
            answer = await self._dispatch.infer(
                self._target,
                len(request.texts),
                [text_tensor(request.texts)],
                self._call,
                tier=self._opening.tier,
            )
            found, usage = await translated(
                len(request.texts), embeddings, answer, self._target.spec, self._opening.options
            )
        except PenstockError as error:
            response.error.CopyFrom(status_of(error))
            return response, 0
        response.embeddings.extend(found)
        self._slowest = max(self._slowest, answer, key=_seconds)
        return response, usage.input_units

    def deliver(self, tokens: int) -> None:
        """Bills what is about to leave."""
        self._usage.input_units += tokens

    def metadata(self) -> metadata_pb2.ResponseMetadata:
        """The whole stream's usage, and the replica and times of its slowest group."""
        return response_metadata(self._target, self._slowest, self._call, self._usage)


def _seconds(answer: Answer) -> float:
    return answer.queue_seconds + answer.inference_seconds


async def _chained(
    first: pb.EmbedStreamRequest, rest: AsyncIterator[pb.EmbedStreamRequest]
) -> AsyncIterator[pb.EmbedStreamRequest]:
    yield first
    async for request in rest:
        yield request
