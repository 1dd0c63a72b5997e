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
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from redis.exceptions import ConnectionError as RedisLost
from redis.exceptions import TimeoutError as RedisSlow

from gateway.authorisation import SCOPES, authorise
from gateway.calls import Call
from gateway.identity import forwarded
from gateway.identity.first_message import checked
from gateway.identity.identifier import Identifier
from gateway.identity.principals import END_USER, end_user_of
from gateway.ledger.events import Entry
from gateway.ledger.ledger import Ledger
from gateway.limits.admission import Admission
from gateway.metering import Meter
from gateway.settings import GatewaySettings
from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    DependencyUnavailable,
    InternalError,
    InvalidArgument,
    PenstockError,
    ReaderStalled,
    Unauthenticated,
    Unimplemented,
)
from penstock.service.rpc import REQUEST_ID, abort

log = logging.getLogger(__name__)

_SINGLE = ("authorization", forwarded.HEADER, END_USER)
"""Metadata that say who calls: of two, neither counts."""
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
        ledger: Ledger,
        settings: GatewaySettings,
    ) -> None:
        self._identifier = identifier
        self._limits = limits
        self._meter = meter
        self._ledger = ledger
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
            entry = self._ledger.entry(method.name, request_id, started)
            try:
                call, incoming = await self._identify(
                    method, incoming, context, request_id, started
                )
                entry.made_by(call)
                if not many:
                    entry.received(incoming)
                await self._admit(method, call)
                request = _decoded(method, incoming, entry) if many else decode(incoming)
                response = await method.run(request, call)
                answer: bytes = response.SerializeToString()
                context.set_trailing_metadata(((REQUEST_ID, request_id), *call.ticket.headers()))
                if call.remaining() <= 0:
                    raise DeadlineExceeded
                entry.answered(answer)
            except BaseException as raised:
                await self._refuse(raised, entry, context)
            self._end(entry, grpc.StatusCode.OK)
            return answer

        return handle

    def _streaming(self, method: Method, many: bool) -> Callable[[Any, Context], Awaitable[None]]:
        # A coroutine that writes, not a generator: only so can a stalled reader be noticed.
        async def handle(incoming: Any, context: Context) -> None:
            request_id, started = secrets.token_hex(16), time.monotonic()
            entry = self._ledger.entry(method.name, request_id, started)
            try:
                call, incoming = await self._identify(
                    method, incoming, context, request_id, started
                )
                entry.made_by(call)
                if not many:
                    entry.received(incoming)
                await self._admit(method, call)
                await context.send_initial_metadata(
                    ((REQUEST_ID, request_id), *call.ticket.headers())
                )
                request = (
                    _decoded(method, incoming, entry)
                    if many
                    else method.request.FromString(incoming)
                )
                await self._write_all(method.run(request, call), call, entry, context)
            except BaseException as raised:
                await self._refuse(raised, entry, context)
            entry.ended()
            self._end(entry, grpc.StatusCode.OK)

        return handle

    async def _refuse(self, raised: BaseException, entry: Entry, context: Context) -> NoReturn:
        """The end of every call that was not answered as a whole."""
        error = _refusal(raised, entry.call, entry.request_id)
        entry.failed(error)
        self._end(entry, error.code)
        if isinstance(raised, asyncio.CancelledError) and context.cancelled():
            raise raised
        await abort(context, error, entry.request_id)

    async def _write_all(self, messages: Any, call: Call, entry: Entry, context: Context) -> None:
        patience = self._settings.stalled_reader_seconds
        try:
            async with asyncio.timeout(call.remaining()), aclosing(messages):
                async for message in messages:
                    encoded = message.SerializeToString()
                    entry.delivering(encoded)
                    try:
                        async with asyncio.timeout(patience):
                            await context.write(encoded)
                    except TimeoutError:
                        raise ReaderStalled(patience) from None
        except TimeoutError:
            raise DeadlineExceeded from None

    async def _identify(
        self, method: Method, incoming: Any, context: Context, request_id: str, started: float
    ) -> tuple[Call, Any]:
        """The call, and its messages behind the check that its credentials may ask for."""
        metadata = _single(tuple(context.invocation_metadata() or ()))
        caller = await self._identifier.identify(method.name, metadata, context)
        if caller.check is not None:
            incoming = await checked(incoming, caller.check)
        principal = caller.principal
        remaining = context.time_remaining()
        seconds = method.default_deadline_seconds if remaining is None else remaining
        deadline = started + min(seconds, self._settings.longest_deadline_seconds)
        trace = metadata.get("traceparent", "")
        call = Call(
            request_id,
            method.name,
            principal,
            started,
            deadline,
            trace if isinstance(trace, str) else "",
        )
        if END_USER in metadata:
            call.subject = end_user_of(principal, metadata)
        return call, incoming

    async def _admit(self, method: Method, call: Call) -> None:
        if method.run is not _unserved:
            authorise(call.principal, method.scope)
        if not method.scope.endswith(":read"):
            self._ledger.check()
        if method.name not in ASKING:
            call.ticket = await self._limits.admit(call.principal)
        call.admitted = True

    def _end(self, entry: Entry, code: grpc.StatusCode) -> None:
        if entry.call is not None:
            entry.call.ticket.close(entry.call)
        self._meter.record(entry.method, code, entry.started, entry.call)


def _single(metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, str | bytes]:
    found = dict(metadata)
    if len(found) != len(metadata):
        for name in _SINGLE:
            if sum(1 for key, _ in metadata if key == name) > 1:
                raise Unauthenticated(f"more than one {name}")
    return found


async def _decoded(
    method: Method, incoming: AsyncIterator[bytes], entry: Entry
) -> AsyncIterator[Message]:
    async for raw in incoming:
        entry.received_message(raw)
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
    if isinstance(raised, RedisLost | RedisSlow):
        log.warning("a store is away", extra={"request_id": request_id, "cause": str(raised)})
        return DependencyUnavailable("a store cannot be reached", retry_after_seconds=1.0)
    log.error("call failed", exc_info=raised, extra={"request_id": request_id})
    return InternalError()
