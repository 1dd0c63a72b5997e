"""The connection to one replica's Open Inference Protocol server, and what its errors mean."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.tensors import Tensor
from penstock.errors import (
    DeadlineExceeded,
    InputTooLong,
    InternalError,
    InvalidArgument,
    Overloaded,
    PenstockError,
    Unavailable,
)
from penstock.errors import FieldViolation as Violation

REFUSAL_MARK = "PENSTOCK "
"""Precedes the JSON of a refusal that our own runtimes mean for the caller."""

_END_OF_STREAM_SECONDS = 1.0

OVERLOADED_RETRY_SECONDS = 1.0
"""When a caller should come back to a model whose replica is full."""

_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class ReplicaLost(Unavailable):
    """The replica cannot run the model now; another one may."""


class Connection:
    """One HTTP/2 connection to a replica; calls share it."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def infer(
        self, request: service_pb2.ModelInferRequest, seconds: float
    ) -> service_pb2.ModelInferResponse:
        """Runs a model once.

        Raises ReplicaLost, InvalidArgument, DeadlineExceeded, InternalError.
        """
        try:
            return await self._stub.ModelInfer(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise meaning(error.code(), error.details() or "") from error

    async def stream(
        self, request: service_pb2.ModelInferRequest, seconds: float
    ) -> AsyncGenerator[service_pb2.ModelInferResponse, None]:
        """Runs a decoupled model on a stream of its own, cancelled when it is left early."""
        deadline = time.monotonic() + seconds
        call = self._stub.ModelStreamInfer(timeout=seconds)
        try:
            # A call that has ended already refuses both; reading then says how it ended.
            with suppress(grpc.aio.InternalError, asyncio.InvalidStateError):
                await call.write(request)
                await call.done_writing()
            while (message := await call.read()) is not grpc.aio.EOF:
                if message.error_message:
                    await _end_of_stream(call)
                    raise meaning(None, message.error_message)
                if message.infer_response.parameters["triton_final_response"].bool_param:
                    await _end_of_stream(call)
                yield message.infer_response
        except grpc.aio.AioRpcError as error:
            # A write that the deadline cuts off is an INTERNAL error to grpc.aio.
            if time.monotonic() >= deadline:
                raise DeadlineExceeded() from error
            raise meaning(error.code(), error.details() or "") from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Ends the connection; calls in flight fail."""
        await self._channel.close()


async def _end_of_stream(
    call: grpc.aio.StreamStreamCall[
        service_pb2.ModelInferRequest, service_pb2.ModelStreamInferResponse
    ],
) -> None:
    """Lets Triton close a stream whose model has answered in full.

    A cancel that arrives in between makes Triton 2.51 keep the model for good: measured, it hangs
    at its next unload within two rounds of 16 streams; closed like this, never.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_OF_STREAM_SECONDS):
            await call.read()


def infer_request(
    triton_name: str,
    rows: int | None,
    inputs: Sequence[Tensor],
    traceparent: str = "",
) -> service_pb2.ModelInferRequest:
    """A ModelInfer request; ``rows`` is None for a model without a batch axis."""
    batch = () if rows is None else (rows,)
    request = service_pb2.ModelInferRequest(
        model_name=triton_name,
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name=tensor.name, datatype=tensor.datatype, shape=(*batch, *tensor.shape)
            )
            for tensor in inputs
        ],
        raw_input_contents=[tensor.data for tensor in inputs],
    )
    if traceparent:
        request.parameters["traceparent"].string_param = traceparent
    return request


def output_tensors(response: service_pb2.ModelInferResponse, batched: bool) -> list[Tensor]:
    """The response's outputs as tensors; ``batched`` says that the first axis counts rows."""
    first = 1 if batched else 0
    return [
        Tensor(output.name, output.datatype, tuple(output.shape[first:]), data)
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    ]


def meaning(code: grpc.StatusCode | None, text: str) -> PenstockError:
    """What a replica's error means; its text is kept for our log only, unless it is a refusal.

    ``code`` is None for errors inside a stream, which Triton sends without one.
    """
    at = text.find(REFUSAL_MARK)
    if at >= 0:
        return _refusal(text[at + len(REFUSAL_MARK) :])
    lowered = text.lower()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED or "timeout expired" in lowered:
        return DeadlineExceeded()
    gone = (
        code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.NOT_FOUND)
        or "not healthy" in lowered
        or "unknown model" in lowered
        or "is not ready" in lowered
        or "shutting down" in lowered
        or "failed to communicate" in lowered
    )
    if gone:
        return ReplicaLost(text)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgument("the model refused the input")
    return InternalError(text)


def _refusal(encoded: str) -> PenstockError:
    try:
        refusal, _ = json.JSONDecoder().raw_decode(encoded)
        reason, field, message = refusal["reason"], refusal["field"], refusal["message"]
    except (ValueError, KeyError, TypeError):
        return InternalError(f"malformed refusal: {encoded}")
    if reason == Overloaded.reason:
        # The replica is well and says that it is full: no reason to keep away from it.
        return Overloaded(message, retry_after_seconds=OVERLOADED_RETRY_SECONDS)
    kind = InputTooLong if reason == InputTooLong.reason else InvalidArgument
    return kind(violations=[Violation(field, message)])
