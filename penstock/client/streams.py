"""Answers that come piece by piece, for ordinary and for asynchronous code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import grpc

from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.types.v1.metadata_pb2 import ResponseMetadata
from penstock.client.failures import error_of
from penstock.client.results import EmbeddedGroup, Generation, read_group
from penstock.errors import Cancelled

Piece = TypeVar("Piece")
Whole = TypeVar("Whole")
Piece_co = TypeVar("Piece_co", covariant=True)
Whole_co = TypeVar("Whole_co", covariant=True)


class Reader(Protocol[Piece_co, Whole_co]):
    """Turns a stream's messages into pieces and, at the end, into the whole."""

    def feed(self, response: Any) -> Piece_co | None:
        """The piece in one message; None when it has none."""

    def whole(self) -> Whole_co:
        """What all messages come to."""


class TextReader:
    """Reads Generate: pieces are text, the whole is the generation."""

    def __init__(self) -> None:
        self._deltas: list[str] = []
        self._reason = inference.FINISH_REASON_UNSPECIFIED
        self._metadata = ResponseMetadata()

    def feed(self, response: inference.GenerateResponse) -> str | None:
        """The next piece of text."""
        self._deltas.append(response.delta)
        if response.finish_reason:
            self._reason = response.finish_reason
        if response.HasField("metadata"):
            self._metadata = response.metadata
        return response.delta or None

    def whole(self) -> Generation:
        """The text so far, why it ended, and who answered."""
        name = inference.FinishReason.Name(self._reason).removeprefix("FINISH_REASON_").lower()
        return Generation("".join(self._deltas), name, self._metadata)


class GroupReader:
    """Reads EmbedStream: pieces are groups, the whole is the stream's metadata."""

    def __init__(self) -> None:
        self._metadata = ResponseMetadata()

    def feed(self, response: embeddings_pb2.EmbedStreamResponse) -> EmbeddedGroup | None:
        """The next group; the last message has none."""
        if response.HasField("metadata"):
            self._metadata = response.metadata
        if response.embeddings or response.HasField("error"):
            return read_group(response)
        return None

    def whole(self) -> ResponseMetadata:
        """Who answered, and the whole stream's usage."""
        return self._metadata


def _source_failure(request: Any) -> Exception | None:
    failure: Exception | None = getattr(request, "failure", None)
    return failure


def _error(failure: grpc.RpcError, request: Any) -> Exception:
    """What ended the stream: the source of its requests, if that failed; else the call."""
    return _source_failure(request) or error_of(failure)


class Stream(Generic[Piece, Whole]):
    """An answer in pieces: iterate over it, then ask for its result.

    Leaving the loop early, ``close()`` and the end of a ``with`` block cancel the call; the server
    stops computing. Iterating raises the same errors as any call; a stream that failed in the
    middle is never repeated.
    """

    def __init__(self, call: Any, reader: Reader[Piece, Whole], request: Any = None) -> None:
        self._call = call
        self._reader = reader
        self._request = request

    def __iter__(self) -> Iterator[Piece]:
        # A generator: `break` drops the loop's only reference to it, which runs the finally.
        try:
            for response in self._call:
                piece = self._reader.feed(response)
                if piece is not None:
                    yield piece
        except grpc.RpcError as failure:
            raise _error(failure, self._request) from failure
        finally:
            self._call.cancel()

    def result(self) -> Whole:
        """Reads what is left and returns the whole. Raises Cancelled after an early leave."""
        for _ in self:
            pass
        return self._reader.whole()

    def close(self) -> None:
        """Cancels the call if it still runs."""
        self._call.cancel()

    def __enter__(self) -> Stream[Piece, Whole]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(Generic[Piece, Whole]):
    """The same for asynchronous code: ``async for``, ``async with`` and ``await result()``."""

    def __init__(self, call: Any, reader: Reader[Piece, Whole], request: Any = None) -> None:
        self._call = call
        self._reader = reader
        self._request = request

    async def __aiter__(self) -> AsyncIterator[Piece]:
        try:
            async for response in self._call:
                piece = self._reader.feed(response)
                if piece is not None:
                    yield piece
        except grpc.RpcError as failure:
            raise _error(failure, self._request) from failure
        except asyncio.CancelledError:
            # grpc.aio says it like this too when only the call was cancelled, not our task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _source_failure(self._request) or Cancelled() from None
        finally:
            self._call.cancel()

    async def result(self) -> Whole:
        """Reads what is left and returns the whole. Raises Cancelled after an early leave."""
        async for _ in self:
            pass
        return self._reader.whole()

    def close(self) -> None:
        """Cancels the call if it still runs."""
        self._call.cancel()

    async def __aenter__(self) -> AsyncStream[Piece, Whole]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
