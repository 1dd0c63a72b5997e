"""Channels whose every attempt at a call is signed anew, over the very bytes that are sent.

A signature is good once, so gRPC's own retries are off on these channels, and unary calls are
repeated here. A stream is not: by the time it fails, its first messages are gone.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from penstock.client.attempts import Attempts
from penstock.client.signing import SigningKey


@dataclass
class _Details(grpc.ClientCallDetails):
    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


def signed_channel(channel: grpc.Channel, key: SigningKey) -> grpc.Channel:
    """The channel with every call signed; its stubs must not serialise (see PreparedChannel)."""
    return grpc.intercept_channel(channel, _Signing(key))


def signing_interceptors(key: SigningKey) -> list[grpc.aio.ClientInterceptor]:
    """The same for an asynchronous channel, which takes them when it is made."""
    attempts = Attempts()
    return [
        _UnaryUnary(key, attempts),
        _UnaryStream(key),
        _StreamUnary(key),
        _StreamStream(key),
    ]


class _Signing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._attempts = Attempts()

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        body = _serialised(request)
        deadline = None if details.timeout is None else time.monotonic() + details.timeout
        for attempt in itertools.count(1):
            call = continuation(_signed(self._key, details, body, deadline), body)
            pause = self._attempts.pause_after(attempt, call.code(), call.trailing_metadata())
            if pause is None or _too_late(deadline, pause):
                break
            time.sleep(pause)
        return call

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        body = _serialised(request)
        return continuation(_signed(self._key, details, body), body)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        first, bodies = _peeked(requests)
        return continuation(_signed(self._key, details, first), bodies)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        first, bodies = _peeked(requests)
        return continuation(_signed(self._key, details, first), bodies)


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, key: SigningKey, attempts: Attempts) -> None:
        self._key = key
        self._attempts = attempts

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> Any:
        body = _serialised(request)
        deadline = None if details.timeout is None else time.monotonic() + details.timeout
        for attempt in itertools.count(1):
            call = await continuation(_signed(self._key, details, body, deadline), body)
            try:
                code = await call.code()
            except asyncio.CancelledError:
                call.cancel()
                raise
            pause = self._attempts.pause_after(attempt, code, await call.trailing_metadata())
            if pause is None or _too_late(deadline, pause):
                break
            await asyncio.sleep(pause)
        return call


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> Any:
        body = _serialised(request)
        return await continuation(_signed(self._key, details, body), body)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], details: Any, requests: Any
    ) -> Any:
        first, bodies = await _peeked_async(requests)
        return await continuation(_signed(self._key, details, first), bodies)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], details: Any, requests: Any
    ) -> Any:
        first, bodies = await _peeked_async(requests)
        return await continuation(_signed(self._key, details, first), bodies)


def _signed(key: SigningKey, details: Any, body: bytes, deadline: float | None = None) -> _Details:
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    header = ("authorization", key.authorization(method, body))
    timeout = details.timeout if deadline is None else max(0.0, deadline - time.monotonic())
    metadata = [header, *(details.metadata or ())]
    asynchronous = isinstance(details, grpc.aio.ClientCallDetails)
    return _Details(
        details.method,
        timeout,
        grpc.aio.Metadata(*metadata) if asynchronous else metadata,
        details.credentials,
        details.wait_for_ready,
        getattr(details, "compression", None),
    )


def _too_late(deadline: float | None, pause: float) -> bool:
    return deadline is not None and time.monotonic() + pause >= deadline


def _serialised(request: Any) -> bytes:
    if isinstance(request, bytes):
        return request
    body: bytes = request.SerializeToString()
    return body


def _peeked(requests: Any) -> tuple[bytes, Iterator[bytes]]:
    """The first message's bytes, none if there is no message, and all messages'."""
    bodies = map(_serialised, requests)
    first = next(bodies, None)
    return first or b"", bodies if first is None else itertools.chain((first,), bodies)


async def _peeked_async(requests: Any) -> tuple[bytes, AsyncIterator[bytes]]:
    bodies = _bodies(requests)
    first = await anext(bodies, None)

    async def every() -> AsyncIterator[bytes]:
        if first is not None:
            yield first
            async for body in bodies:
                yield body

    return first or b"", every()


async def _bodies(requests: Any) -> AsyncIterator[bytes]:
    if hasattr(requests, "__aiter__"):
        async for request in requests:
            yield _serialised(request)
    else:
        for request in requests:
            yield _serialised(request)
