"""The requests of an embed_stream: the first names the model; a failing source is remembered."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from penstock.api.embeddings.v1.embeddings_pb2 import EmbedStreamRequest

Group: TypeAlias = tuple[str, Sequence[str]] | EmbedStreamRequest
"""A group id with its texts, or a message."""
Groups: TypeAlias = Iterable[Group] | AsyncIterable[Group]


class Outgoing:
    """Requests made from the caller's groups as the server takes them.

    gRPC ends the call when the source raises, but hides why; ``failure`` keeps it.
    """

    def __init__(self, first: EmbedStreamRequest) -> None:
        self.failure: Exception | None = None
        self._first: EmbedStreamRequest | None = first

    def _request(self, group: Group) -> EmbedStreamRequest:
        if isinstance(group, EmbedStreamRequest):
            request = group
        else:
            request = EmbedStreamRequest(group_id=group[0], texts=group[1])
        if self._first is not None:
            request.MergeFrom(self._first)
            self._first = None
        return request


class OutgoingGroups(Outgoing):
    """From an ordinary iterable."""

    def __init__(self, first: EmbedStreamRequest, groups: Iterable[Group]) -> None:
        super().__init__(first)
        self._groups = iter(groups)

    def __iter__(self) -> Iterator[EmbedStreamRequest]:
        return self

    def __next__(self) -> EmbedStreamRequest:
        try:
            return self._request(next(self._groups))
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


class OutgoingAsyncGroups(Outgoing):
    """From an asynchronous iterable."""

    def __init__(self, first: EmbedStreamRequest, groups: AsyncIterable[Group]) -> None:
        super().__init__(first)
        self._groups = aiter(groups)

    def __aiter__(self) -> AsyncIterator[EmbedStreamRequest]:
        return self

    async def __anext__(self) -> EmbedStreamRequest:
        try:
            return self._request(await anext(self._groups))
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


def outgoing(first: EmbedStreamRequest, groups: Groups) -> Any:
    """The iterator that gRPC reads, of the kind that the caller's groups are."""
    if isinstance(groups, AsyncIterable):
        return OutgoingAsyncGroups(first, groups)
    return OutgoingGroups(first, groups)
