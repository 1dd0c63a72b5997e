"""Rebuilds the server's error from a gRPC status: the same class of penstock.errors (AIP-193)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from penstock.errors import DOMAIN, FieldViolation, PenstockError, Unavailable

REQUEST_ID = "x-request-id"
_DETAILS = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Unreachable(Unavailable):
    """No gateway answered: wrong address, nothing listens there, or the connection was lost.

    Raised by the client, never by a server.
    """

    reason = "UNREACHABLE"


def error_of(failure: grpc.RpcError) -> PenstockError:
    """The error that a failed call carries, its request id included.

    Errors that did not come from Penstock (a proxy's, or gRPC's own) become the class of their
    code; UNAVAILABLE from nowhere becomes Unreachable.
    """
    call: Any = failure
    trailing = dict(call.trailing_metadata() or ())
    initial = dict(call.initial_metadata() or ())
    status = _details(trailing.get(_DETAILS))
    error = error_of_status(status) if status else _plain(call.code(), call.details() or "")
    request_id = trailing.get(REQUEST_ID) or initial.get(REQUEST_ID) or ""
    error.request_id = request_id if isinstance(request_id, str) else ""
    return error


@contextmanager
def errors_rebuilt() -> Iterator[None]:
    """Turns a failed call inside the block into the error that it carries."""
    try:
        yield
    except grpc.RpcError as failure:
        raise error_of(failure) from failure


def error_of_status(status: status_pb2.Status) -> PenstockError:
    """The error that a google.rpc.Status describes, such as the one in EmbedStreamResponse."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for kind in (info, bad, retry):
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(kind)
    ours = info.domain == DOMAIN
    error = _blank(_class_of(code, info.reason if ours else ""), status.message)
    if info.reason:
        error.reason = info.reason
        error.metadata = dict(info.metadata)
    error.code = code
    error.violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    if retry.HasField("retry_delay"):
        error.retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return error


def _plain(code: grpc.StatusCode | None, message: str) -> PenstockError:
    if code is grpc.StatusCode.UNAVAILABLE:
        if "WRONG_VERSION_NUMBER" in message:
            message = "the server speaks plaintext: ask for it with http:// or tls=False"
        return _blank(Unreachable, message)
    code = code or grpc.StatusCode.UNKNOWN
    error = _blank(_class_of(code, ""), message)
    if error.code is not code:
        error.reason = code.name
    error.code = code
    return error


def _blank(kind: type[PenstockError], message: str) -> PenstockError:
    # The subclasses' constructors compose messages from what only the server knows.
    error = kind.__new__(kind)
    PenstockError.__init__(error, message)
    return error


def _class_of(code: grpc.StatusCode, reason: str) -> type[PenstockError]:
    """The class of that code and reason; else the code's most general one."""
    of_code = [kind for kind in _below(PenstockError) if kind.code is code]
    for kind in of_code:
        if reason and kind.reason == reason:
            return kind
    return of_code[0] if of_code else PenstockError


def _below(root: type[PenstockError]) -> Iterable[type[PenstockError]]:
    """Every class below, the more general first."""
    level = root.__subclasses__()
    while level:
        yield from level
        level = [child for kind in level for child in kind.__subclasses__()]


def _details(packed: str | bytes | None) -> status_pb2.Status | None:
    if not isinstance(packed, bytes):
        return None
    try:
        return status_pb2.Status.FromString(packed)
    except DecodeError:
        return None
