"""An Open Inference Protocol server that does as told, for what a healthy Triton never does."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
Script = Callable[[oip.ModelInferRequest, Context], Awaitable[oip.ModelInferResponse]]


def floats(values: list[float]) -> bytes:
    """FP32 as the protocol carries it."""
    return struct.pack(f"<{len(values)}f", *values)


def doubled(request: oip.ModelInferRequest) -> oip.ModelInferResponse:
    """One FP32 output of the request's first input's shape, each element times two."""
    data = request.raw_input_contents[0]
    values = struct.unpack(f"<{len(data) // 4}f", data)
    shape = request.inputs[0].shape
    return oip.ModelInferResponse(
        outputs=[
            oip.ModelInferResponse.InferOutputTensor(name="value", datatype="FP32", shape=shape)
        ],
        raw_output_contents=[floats([2 * value for value in values])],
    )


class ScriptedReplica(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers ModelInfer by ``script``, while ``gate`` is open."""

    def __init__(self) -> None:
        self.requests: list[oip.ModelInferRequest] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.script: Script | None = None
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self.server)
        self.endpoint = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    def rows(self) -> list[int]:
        """Rows of each call so far."""
        return [request.inputs[0].shape[0] for request in self.requests]

    async def ModelInfer(  # noqa: N802
        self, request: oip.ModelInferRequest, context: Context
    ) -> oip.ModelInferResponse:
        self.requests.append(request)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self.script(request, context) if self.script else doubled(request)
