"""How a PenstockError becomes a gRPC status: the one place where errors leave (AIP-193)."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from penstock.errors import DOMAIN, PenstockError, ResourceExhausted

REQUEST_ID = "x-request-id"
_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"
_LONGEST_PUSHBACK = 2**31 - 1


def status_of(error: PenstockError) -> status_pb2.Status:
    """The error with ErrorInfo, and BadRequest, RetryInfo and QuotaFailure where they apply."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    details: list[Any] = [info]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.violations
                ]
            )
        )
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, ResourceExhausted) and "limit" in error.metadata:
        details.append(
            error_details_pb2.QuotaFailure(
                violations=[
                    error_details_pb2.QuotaFailure.Violation(
                        subject=error.metadata.get("subject", "key"),
                        description=error.metadata["limit"],
                    )
                ]
            )
        )
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(
    context: grpc.aio.ServicerContext[Any, Any], error: PenstockError, request_id: str
) -> NoReturn:
    """Ends the call with the error; clients find the details in grpc-status-details-bin."""
    trailing: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, request_id),
        (_DETAILS, status_of(error).SerializeToString()),
    ]
    if error.retry_after_seconds is not None:
        milliseconds = max(1, round(error.retry_after_seconds * 1000))
        trailing.append((_PUSHBACK, str(min(milliseconds, _LONGEST_PUSHBACK))))
    elif isinstance(error, ResourceExhausted):
        # The same call will not pass later, either (gRFC A6: negative means do not retry).
        trailing.append((_PUSHBACK, "-1"))
    await context.abort(error.code, error.message, tuple(trailing))
    raise AssertionError("abort returned")
