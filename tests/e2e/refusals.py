"""What a refusal says, and whether a call got as far as Triton."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

INTERNALS = re.compile(
    r"traceback|exception|triton|redis|stub|\.py\b|/home/|/usr/|/tmp/|site-packages|127\.0\.0\.1"
    r"|0x[0-9a-f]{6}|pillow|numpy|torch",
    re.IGNORECASE,
)
"""What only someone who runs the service should read."""


@dataclass(frozen=True)
class Refusal:
    """A call's end as its caller sees it."""

    code: grpc.StatusCode
    text: str
    reason: str
    """Empty where gRPC itself refused."""
    fields: tuple[str, ...]
    request_id: str


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Reads the error, after checking that it tells nothing it should not."""
    code, text = error.code(), error.details() or ""
    assert code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL), text
    assert not INTERNALS.search(text), text
    metadata = dict(error.trailing_metadata() or ())
    reason, fields = "", []
    encoded = metadata.get("grpc-status-details-bin")
    if isinstance(encoded, bytes):
        status = status_pb2.Status.FromString(encoded)
        assert (status.code, status.message) == (code.value[0], text)
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                assert info.domain == "penstock.dev"
                reason = info.reason
            elif detail.Unpack(bad):
                for violation in bad.field_violations:
                    assert not INTERNALS.search(violation.description), violation
                    fields.append(violation.field)
    return Refusal(code, text, reason, tuple(fields), str(metadata.get("x-request-id", "")))


class TritonLog:
    """Counts what Triton was asked to run, by its own statistics."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint)
        self._triton = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def requests(self) -> int:
        """Requests that any model has finished, well or not."""
        found = await self._triton.ModelStatistics(service_pb2.ModelStatisticsRequest())
        return sum(
            model.inference_stats.success.count + model.inference_stats.fail.count
            for model in found.model_stats
        )

    async def untouched(self, attempt: Callable[[], Awaitable[Refusal]]) -> Refusal:
        """The refusal, after checking that Triton ran nothing for it.

        The serving agent's probes are counted too, so a rise is believed when it comes each time.
        """
        for _ in range(4):
            before = await self.requests()
            refusal = await attempt()
            if await self.requests() == before:
                return refusal
        raise AssertionError("the call reached Triton")

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()
