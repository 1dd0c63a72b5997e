"""The path of every call: identify, authorise, limit, run the handler, answer or refuse, meter.

Methods are registered on raw bytes, so that nothing of a body is decoded before its caller is
known. Every error leaves here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from gateway.authorisation import SCOPES, authorise
from gateway.calls import Call
from gateway.identity import Identifier
from gateway.limits.admission import Admission
from gateway.limits.tickets import UNLIMITED
from gateway.metering import Meter
from gateway.settings import GatewaySettings
from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    PenstockError,
    ReaderStalled,
    Unimplemented,
)
from penstock.service.rpc import REQUEST_ID, abort

log = logging.getLogger(__name__)

ASKING = frozenset({"/penstock.api.usage.v1.UsageService/GetLimits"})
"""Asking what is left uses nothing of it."""

Context = grpc.aio.ServicerContext[Any, Any]
Run = Callable[[Any, Call], Any]
"""A handler: (request or request iterator, call) -> response, or async iterator of responses."""


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc: what it needs and what it takes."""

    name: str
    scope: str
    run: Run
    request: type[Message]
    default_deadline_seconds: float


class Pipeline:
    """Wraps the handlers of a service; policy lives here, translation lives in the handlers."""

    def __init__(
        self,
        identifier: Identifier,
        limits: Admission,
        meter: Meter,
        settings: GatewaySettings,
    ) -> None:
        self._identifier = identifier
        self._limits = limits
        self._meter = meter
        self._settings = settings

    def serve(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """Handlers for every method of the contract; those the servicer lacks are UNIMPLEMENTED."""
        handlers = {
            method.name: self._handler(method, getattr(servicer, method.name, None))
            for method in service.methods
        }
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _handler(self, rpc: MethodDescriptor, run: Run | None) -> grpc.RpcMethodHandler[Any, Any]:
        name = f"/{rpc.containing_service.full_name}/{rpc.name}"
        streams = rpc.client_streaming or rpc.server_streaming
        settings = self._settings
        method = Method(
            name,
            SCOPES.get(name, ""),
            run or _unserved,
            GetMessageClass(rpc.input_type),
            settings.default_stream_deadline_seconds
            if streams
            else settings.default_deadline_seconds,
        )
        served = run is not None
        if rpc.server_streaming and served:
            kind = (
                grpc.stream_stream_rpc_method_handler
                if rpc.client_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return kind(self._streaming(method, rpc.client_streaming))
        if rpc.client_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(method, True))
        return grpc.unary_unary_rpc_method_handler(self._unary(method, False))

    def _unary(self, method: Method, many: bool) -> Callable[[Any, Context], Awaitable[bytes]]:
        decode = method.request.FromString

        async def handle(incoming: Any, context: Context) -> bytes:
            request_id, started = secrets.token_hex(16), time.monotonic()
            call: Call | None = None
            try:
                call = await self._begin(method, context, request_id, started)
                request = _decoded(method, incoming) if many else decode(incoming)
                response = await method.run(request, call)
                answer: bytes = response.SerializeToString()
                context.set_trailing_metadata(((REQUEST_ID, request_id), *call.ticket.headers()))
            except BaseException as raised:
                error = _refusal(raised, call, request_id)
                self._end(method, error.code, started, call)
                if isinstance(raised, asyncio.CancelledError) and context.cancelled():
                    raise
                await abort(context, error, request_id)
            self._end(method, grpc.StatusCode.OK, started, call)
            return answer

        return handle

    def _streaming(self, method: Method, many: bool) -> Callable[[Any, Context], Awaitable[None]]:
        # A coroutine that writes, not a generator: only so can a stalled reader be noticed.
        async def handle(incoming: Any, context: Context) -> None:
            request_id, started = secrets.token_hex(16), time.monotonic()
            call: Call | None = None
            try:
                call = await self._begin(method, context, request_id, started)
                await context.send_initial_metadata(
                    ((REQUEST_ID, request_id), *call.ticket.headers())
                )
                request = (
                    _decoded(method, incoming) if many else method.request.FromString(incoming)
                )
                await self._write_all(method.run(request, call), call, context)
            except BaseException as raised:
                error = _refusal(raised, call, request_id)
                self._end(method, error.code, started, call)
                if isinstance(raised, asyncio.CancelledError) and context.cancelled():
                    raise
                await abort(context, error, request_id)
            self._end(method, grpc.StatusCode.OK, started, call)

        return handle

    async def _write_all(self, messages: Any, call: Call, context: Context) -> None:
        patience = self._settings.stalled_reader_seconds
        try:
            async with asyncio.timeout(call.remaining()), aclosing(messages):
                async for message in messages:
                    encoded = message.SerializeToString()
                    try:
                        async with asyncio.timeout(patience):
                            await context.write(encoded)
                    except TimeoutError:
                        raise ReaderStalled(patience) from None
        except TimeoutError:
            raise DeadlineExceeded from None

    async def _begin(
        self, method: Method, context: Context, request_id: str, started: float
    ) -> Call:
        metadata = _single(tuple(context.invocation_metadata() or ()))
        principal = await self._identifier.identify(metadata)
        if method.run is not _unserved:
            authorise(principal, method.scope)
        ticket = UNLIMITED if method.name in ASKING else await self._limits.admit(principal)
        remaining = context.time_remaining()
        seconds = method.default_deadline_seconds if remaining is None else remaining
        deadline = started + min(seconds, self._settings.longest_deadline_seconds)
        trace = metadata.get("traceparent", "")
        return Call(
            request_id,
            method.name,
            principal,
            started,
            deadline,
            trace if isinstance(trace, str) else "",
            ticket=ticket,
        )

    def _end(
        self, method: Method, code: grpc.StatusCode, started: float, call: Call | None
    ) -> None:
        if call is not None:
            call.spends = call.ticket.close(call)
        self._meter.record(method.name, code, started, call)


def _single(metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, str | bytes]:
    found = dict(metadata)
    if len(found) != len(metadata) and sum(1 for key, _ in metadata if key == "authorization") > 1:
        raise InvalidArgument("more than one authorization header")
    return found


async def _decoded(method: Method, incoming: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for raw in incoming:
        yield method.request.FromString(raw)


async def _unserved(_: Any, call: Call) -> Message:
    raise Unimplemented(call.method)


def _refusal(raised: BaseException, call: Call | None, request_id: str) -> PenstockError:
    """What the caller is told; what it is not told goes to the log with the request id."""
    if isinstance(raised, PenstockError):
        return raised
    if isinstance(raised, DecodeError):
        return InvalidArgument("the message cannot be decoded")
    late = call is not None and call.remaining() <= 0
    if isinstance(raised, asyncio.CancelledError):
        return DeadlineExceeded() if late else Cancelled()
    log.error("call failed", exc_info=raised, extra={"request_id": request_id})
    return InternalError()
