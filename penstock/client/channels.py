"""How the SDK holds its connection: balancing, bounded retries, keepalive, TLS, key, deadlines."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from penstock.client.configuration import ConfigurationError, Connection
from penstock.client.credentials import Credentials, Metadata
from penstock.client.signed_channels import signed_channel, signing_interceptors
from penstock.client.signing import SigningKey

SERVICE_CONFIG = {
    # One connection an address, used in turn: several gateways behind one name share the work, and
    # one that goes away is skipped.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            # gRPC itself never repeats a call once anything of its answer has arrived.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # A gRPC server that drains resets the calls that cross its GOAWAY, and says
                # CANCELLED: 56 of 45,164 calls over 14 restarts. The caller's own cancel ends a
                # call for good whatever stands here.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # A gateway that dies with a hundred calls in flight is survived; a cluster in trouble gets at
    # most one retry for every ten calls that succeed.
    "retryThrottling": {"maxTokens": 200, "tokenRatio": 0.1},
}

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # The largest answers are matrices of vectors; the gateway bounds what it sends.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A connection that a firewall forgot is noticed while a call waits on it. Idle connections send
    # nothing: servers answer pings that they did not allow with GOAWAY "too_many_pings".
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # A gateway that restarts is back within a second or so; the default would wait 20 s and more.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def channel_options(connection: Connection, *, signed: bool = False) -> list[tuple[str, Any]]:
    """Options of a channel to the gateway. On a signed one gRPC repeats nothing."""
    options = list(_OPTIONS)
    if signed:
        # Of two values gRPC takes the first.
        options.insert(0, ("grpc.enable_retries", 0))
    host = connection.endpoint.rpartition(":")[0]
    if host in ("localhost", "[::1]") or host.startswith("127."):
        options.append(("grpc.enable_http_proxy", 0))
    return options


def tls_credentials(connection: Connection) -> grpc.ChannelCredentials:
    """Trusts the CA file, or the system's authorities, or at last gRPC's own list; shows the
    client certificate if there is one.

    Raises ConfigurationError for a file that cannot be read.
    """
    own: tuple[bytes, ...] = ()
    if connection.client_certificate:
        certificate, private_key = connection.client_certificate
        own = (_read(private_key), _read(certificate))
    return grpc.ssl_channel_credentials(_authorities(connection), *own)


def _authorities(connection: Connection) -> bytes | None:
    if connection.ca_file:
        return _read(connection.ca_file)
    system = ssl.get_default_verify_paths().cafile
    if "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in os.environ or system is None:
        return None
    return Path(system).read_bytes()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the file {path} cannot be read: {error.strerror}") from error


def open_channel(connection: Connection, signing_key: SigningKey | None = None) -> grpc.Channel:
    """A channel for ordinary code; it connects at the first call."""
    options = channel_options(connection, signed=signing_key is not None)
    if connection.tls:
        channel = grpc.secure_channel(connection.endpoint, tls_credentials(connection), options)
    else:
        channel = grpc.insecure_channel(connection.endpoint, options)
    return channel if signing_key is None else signed_channel(channel, signing_key)


def open_async_channel(
    connection: Connection, signing_key: SigningKey | None = None
) -> grpc.aio.Channel:
    """A channel for asynchronous code; it connects at the first call."""
    options = channel_options(connection, signed=signing_key is not None)
    signing = None if signing_key is None else signing_interceptors(signing_key)
    if not connection.tls:
        return grpc.aio.insecure_channel(connection.endpoint, options, interceptors=signing)
    return grpc.aio.secure_channel(
        connection.endpoint, tls_credentials(connection), options, interceptors=signing
    )


class PreparedChannel:
    """A channel whose every call carries the key and has a deadline; generated stubs take it.

    Works for both kinds of channel. Interceptors would do the same for more time a call, and call
    credentials refuse to work over the plaintext that a mesh's sidecar takes. On a signed channel
    the signature's interceptors serialise, for they must see what is sent.
    """

    def __init__(
        self,
        channel: Any,
        credentials: Credentials,
        timeout_seconds: float,
        stream_timeout_seconds: float,
    ) -> None:
        self._channel = channel
        self._metadata = credentials.metadata()
        self._signed = credentials.signing_key is not None
        self._timeout_seconds = timeout_seconds
        self._stream_timeout_seconds = stream_timeout_seconds

    def unary_unary(self, *args: Any, **kwargs: Any) -> PreparedCall:
        """One message there, one back."""
        return self._prepared(self._channel.unary_unary, self._timeout_seconds, args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> PreparedCall:
        """One message there, many back."""
        return self._prepared(
            self._channel.unary_stream, self._stream_timeout_seconds, args, kwargs
        )

    def stream_unary(self, *args: Any, **kwargs: Any) -> PreparedCall:
        """Many messages there, one back."""
        return self._prepared(
            self._channel.stream_unary, self._stream_timeout_seconds, args, kwargs
        )

    def stream_stream(self, *args: Any, **kwargs: Any) -> PreparedCall:
        """Many messages both ways."""
        return self._prepared(
            self._channel.stream_stream, self._stream_timeout_seconds, args, kwargs
        )

    def _prepared(
        self, make: Callable[..., Any], timeout_seconds: float, args: Any, kwargs: Any
    ) -> PreparedCall:
        if self._signed:
            kwargs["request_serializer"] = None
        return PreparedCall(make(*args, **kwargs), self._metadata, timeout_seconds)


class PreparedCall:
    """A method of a stub with the key and the default deadline put in."""

    def __init__(
        self, method: Any, metadata: Metadata | Callable[[], Metadata], timeout_seconds: float
    ) -> None:
        self._method = method
        self._metadata = metadata
        self._timeout_seconds = timeout_seconds

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **self._filled(kwargs))

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        """As in grpc: returns the response and the call."""
        return self._method.with_call(*args, **self._filled(kwargs))

    def future(self, *args: Any, **kwargs: Any) -> Any:
        """As in grpc: returns at once."""
        return self._method.future(*args, **self._filled(kwargs))

    def _filled(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._timeout_seconds
        own = self._metadata() if callable(self._metadata) else self._metadata
        kwargs["metadata"] = (*own, *(kwargs.get("metadata") or ()))
        return kwargs
