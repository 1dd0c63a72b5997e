"""The two clients: Client waits for answers, AsyncClient awaits them; all else is shared."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc

from penstock.client import audit, embeddings, inference, keys, models, tenants, usage
from penstock.client.channels import PreparedChannel, open_async_channel, open_channel
from penstock.client.configuration import Connection, find_connection
from penstock.client.credentials import Credentials, Token, find_credentials
from penstock.client.failures import errors_rebuilt
from penstock.client.operations import Paged, Streaming, Unary
from penstock.client.signing import SigningKey
from penstock.client.streams import AsyncStream, Stream

P = ParamSpec("P")
R = TypeVar("R")
Stub = TypeVar("Stub")
Piece = TypeVar("Piece")
Whole = TypeVar("Whole")

TIMEOUT_SECONDS = 30.0
STREAM_TIMEOUT_SECONDS = 600.0


class _Transport:
    """A prepared channel and the stubs made on it."""

    def __init__(
        self, channel: Any, credentials: Credentials, timeout: float, stream_timeout: float
    ) -> None:
        self.channel = channel
        self._prepared: Any = PreparedChannel(channel, credentials, timeout, stream_timeout)
        self._stubs: dict[Any, Any] = {}

    def stub(self, service: Any) -> Any:
        """The service's stub, made once."""
        if service not in self._stubs:
            self._stubs[service] = service(self._prepared)
        return self._stubs[service]

    def start(self, service: Any, method: str, request: Any, timeout: float | None) -> Any:
        """Starts a call: an answer or iterator for ordinary code, a call object otherwise."""
        return getattr(self.stub(service), method)(request, timeout=timeout)


class _Blocking:
    """What has blocking methods."""

    def __init__(self, transport: _Transport) -> None:
        self._transport = transport


class _Awaiting:
    """What has awaitable methods."""

    def __init__(self, transport: _Transport) -> None:
        self._transport = transport


def _method(run: Callable[..., Any], build: Callable[..., Any]) -> Any:
    """A method with the documentation and the signature of the operation that it runs."""
    functools.update_wrapper(run, build, assigned=("__doc__", "__name__"))
    del run.__wrapped__  # type: ignore[attr-defined]
    signature = inspect.signature(build)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [itself, *signature.parameters.values()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _call(build: Callable[P, Unary[R]]) -> Callable[Concatenate[_Blocking, P], R]:
    def run(self: _Blocking, /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = build(*args, **kwargs)
        with errors_rebuilt():
            answer = self._transport.start(call.service, call.method, call.request, call.timeout)
        return call.read(answer)

    return _method(run, build)  # type: ignore[no-any-return]


def _list(build: Callable[P, Paged[R]]) -> Callable[Concatenate[_Blocking, P], list[R]]:
    def run(self: _Blocking, /, *args: P.args, **kwargs: P.kwargs) -> list[R]:
        call = build(*args, **kwargs)
        items: list[R] = []
        while True:
            with errors_rebuilt():
                page = self._transport.start(call.service, call.method, call.request, call.timeout)
            items += call.items(page)
            if not page.next_page_token:
                return items
            call.request.page_token = page.next_page_token

    return _method(run, build)  # type: ignore[no-any-return]


def _stream(
    build: Callable[P, Streaming[Piece, Whole]],
) -> Callable[Concatenate[_Blocking, P], Stream[Piece, Whole]]:
    def run(self: _Blocking, /, *args: P.args, **kwargs: P.kwargs) -> Stream[Piece, Whole]:
        call = build(*args, **kwargs)
        if isinstance(call.request, AsyncIterable):
            raise TypeError("asynchronous iterables are for AsyncClient")
        started = self._transport.start(call.service, call.method, call.request, call.timeout)
        return Stream(started, call.reader, call.request)

    return _method(run, build)  # type: ignore[no-any-return]


def _async_call(build: Callable[P, Unary[R]]) -> Callable[Concatenate[_Awaiting, P], Awaitable[R]]:
    async def run(self: _Awaiting, /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = build(*args, **kwargs)
        with errors_rebuilt():
            answer = await self._transport.start(
                call.service, call.method, call.request, call.timeout
            )
        return call.read(answer)

    return _method(run, build)  # type: ignore[no-any-return]


def _async_list(
    build: Callable[P, Paged[R]],
) -> Callable[Concatenate[_Awaiting, P], Awaitable[list[R]]]:
    async def run(self: _Awaiting, /, *args: P.args, **kwargs: P.kwargs) -> list[R]:
        call = build(*args, **kwargs)
        items: list[R] = []
        while True:
            with errors_rebuilt():
                page = await self._transport.start(
                    call.service, call.method, call.request, call.timeout
                )
            items += call.items(page)
            if not page.next_page_token:
                return items
            call.request.page_token = page.next_page_token

    return _method(run, build)  # type: ignore[no-any-return]


def _async_stream(
    build: Callable[P, Streaming[Piece, Whole]],
) -> Callable[Concatenate[_Awaiting, P], AsyncStream[Piece, Whole]]:
    def run(self: _Awaiting, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[Piece, Whole]:
        call = build(*args, **kwargs)
        started = self._transport.start(call.service, call.method, call.request, call.timeout)
        return AsyncStream(started, call.reader, call.request)

    return _method(run, build)  # type: ignore[no-any-return]


class Models(_Blocking):
    """Which models there are."""

    list = _list(models.list_models)
    get = _call(models.get_model)
    versions = _list(models.list_versions)


class Tenants(_Blocking):
    """Who may use the cluster, and how much."""

    create = _call(tenants.create_tenant)
    list = _list(tenants.list_tenants)
    get = _call(tenants.get_tenant)
    update = _call(tenants.update_tenant)
    suspend = _call(tenants.suspend_tenant)
    resume = _call(tenants.resume_tenant)
    erase = _call(tenants.erase_tenant)


class Keys(_Blocking):
    """The credentials under which tenants call."""

    create = _call(keys.create_key)
    list = _list(keys.list_keys)
    get = _call(keys.get_key)
    update = _call(keys.update_key)
    rotate = _call(keys.rotate_key)
    revoke = _call(keys.revoke_key)


class AsyncModels(_Awaiting):
    """Which models there are."""

    list = _async_list(models.list_models)
    get = _async_call(models.get_model)
    versions = _async_list(models.list_versions)


class AsyncTenants(_Awaiting):
    """Who may use the cluster, and how much."""

    create = _async_call(tenants.create_tenant)
    list = _async_list(tenants.list_tenants)
    get = _async_call(tenants.get_tenant)
    update = _async_call(tenants.update_tenant)
    suspend = _async_call(tenants.suspend_tenant)
    resume = _async_call(tenants.resume_tenant)
    erase = _async_call(tenants.erase_tenant)


class AsyncKeys(_Awaiting):
    """The credentials under which tenants call."""

    create = _async_call(keys.create_key)
    list = _async_list(keys.list_keys)
    get = _async_call(keys.get_key)
    update = _async_call(keys.update_key)
    rotate = _async_call(keys.rotate_key)
    revoke = _async_call(keys.revoke_key)


def _as_whom(connection: Connection, given: Credentials | None) -> tuple[Connection, Credentials]:
    """The configured key is left aside where something else was given."""
    if given is None:
        return connection, Credentials(connection.api_key)
    return replace(connection, api_key=""), given


class Usage(_Blocking):
    """What was used, and what may still be used."""

    query = _list(usage.query_usage)
    limits = _call(usage.get_limits)


class AsyncUsage(_Awaiting):
    """What was used, and what may still be used."""

    query = _async_list(usage.query_usage)
    limits = _async_call(usage.get_limits)


class Audit(_Blocking):
    """The audit trail, and the proof that nobody has changed it."""

    list = _list(audit.list_events)
    query = _call(audit.query_events)
    verify = _call(audit.verify_chain)


class AsyncAudit(_Awaiting):
    """The audit trail, and the proof that nobody has changed it."""

    list = _async_list(audit.list_events)
    query = _async_call(audit.query_events)
    verify = _async_call(audit.verify_chain)


class Client(_Blocking):
    """Calls Penstock from ordinary code; safe to share between threads, worth keeping.

    ``endpoint`` and ``api_key`` come from PENSTOCK_ENDPOINT and PENSTOCK_API_KEY, or from the
    configuration file, where they are not given (see penstock.client.configuration). The connection
    is TLS unless ``tls=False``, http:// or the file asks for plaintext. ``timeout`` and
    ``stream_timeout`` are the deadlines in seconds of calls that name none. A call that
    a server gave up (UNAVAILABLE, or CANCELLED while it drains) is tried again up to three times
    while nothing of the answer has come and the deadline allows.

    Instead of an API key: ``token`` is an OAuth2 access token or a function that gives the present
    one; ``signing_key`` is a SigningKey, or a shared secret ``pss_...``, and signs every attempt
    (signed streams are not tried again); ``client_certificate`` is the files of a certificate chain
    and its private key, for mutual TLS, which needs nothing else where it proves a known workload.

    Raises ConfigurationError when it does not know where to connect; its methods raise
    penstock.errors.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        api_key: str | None = None,
        *,
        token: Token | None = None,
        signing_key: SigningKey | str | None = None,
        client_certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        tls: bool | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
        stream_timeout: float = STREAM_TIMEOUT_SECONDS,
    ) -> None:
        given = find_credentials(api_key, token, signing_key)
        self.connection: Connection = find_connection(
            endpoint, api_key, tls=tls, ca_file=ca_file, client_certificate=client_certificate
        )
        self.connection, credentials = _as_whom(self.connection, given)
        channel = open_channel(self.connection, credentials.signing_key)
        super().__init__(_Transport(channel, credentials, timeout, stream_timeout))
        self.models = Models(self._transport)
        self.tenants = Tenants(self._transport)
        self.keys = Keys(self._transport)
        self.usage = Usage(self._transport)
        self.audit = Audit(self._transport)

    classify = _call(inference.classify)
    extract_entities = _call(inference.extract_entities)
    detect_objects = _call(inference.detect_objects)
    predict = _call(inference.predict)
    generate = _stream(inference.generate)
    embed = _call(embeddings.embed)
    embed_stream = _stream(embeddings.embed_stream)

    def stub(self, service: Callable[[grpc.Channel], Stub]) -> Stub:
        """A generated stub on this connection, with its key and deadlines, for everything else.

        Its calls raise grpc.RpcError; ``penstock.error_of`` rebuilds what one carries.
        """
        return self._transport.stub(service)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Closes the connection and cancels what still runs on it."""
        self._transport.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Awaiting):
    """Calls Penstock from asynchronous code; make it inside the running event loop, and keep it.

    The arguments and errors are Client's, and so are the methods: await them, and read streams with
    ``async for``.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        api_key: str | None = None,
        *,
        token: Token | None = None,
        signing_key: SigningKey | str | None = None,
        client_certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        tls: bool | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
        stream_timeout: float = STREAM_TIMEOUT_SECONDS,
    ) -> None:
        given = find_credentials(api_key, token, signing_key)
        self.connection: Connection = find_connection(
            endpoint, api_key, tls=tls, ca_file=ca_file, client_certificate=client_certificate
        )
        self.connection, credentials = _as_whom(self.connection, given)
        channel = open_async_channel(self.connection, credentials.signing_key)
        super().__init__(_Transport(channel, credentials, timeout, stream_timeout))
        self.models = AsyncModels(self._transport)
        self.tenants = AsyncTenants(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.usage = AsyncUsage(self._transport)
        self.audit = AsyncAudit(self._transport)

    classify = _async_call(inference.classify)
    extract_entities = _async_call(inference.extract_entities)
    detect_objects = _async_call(inference.detect_objects)
    predict = _async_call(inference.predict)
    generate = _async_stream(inference.generate)
    embed = _async_call(embeddings.embed)
    embed_stream = _async_stream(embeddings.embed_stream)

    def stub(self, service: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """A generated stub on this connection, with its key and deadlines, for everything else.

        Its calls raise grpc.RpcError; ``penstock.error_of`` rebuilds what one carries.
        """
        return self._transport.stub(service)  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Closes the connection and cancels what still runs on it."""
        await self._transport.channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
