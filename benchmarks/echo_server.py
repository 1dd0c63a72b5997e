"""The yardstick: a bare grpc.aio server that decodes a PredictRequest and encodes a fixed answer.

No identity, no limits, no metering, no model: what Python's gRPC costs by itself.
"""

from __future__ import annotations

import grpc
import uvloop

from penstock.api.inference.v1 import inference_pb2 as pb

METHOD = "/benchmarks.Echo/Predict"

_ANSWER = pb.PredictResponse(
    predictions=[
        pb.Prediction(
            label="legitimate",
            score=0.99,
            probabilities=[
                pb.LabelProbability(label="legitimate", probability=0.99),
                pb.LabelProbability(label="fraud", probability=0.01),
            ],
        )
    ]
)


async def _echo(request: pb.PredictRequest, _: object) -> pb.PredictResponse:
    assert request.WhichOneof("input")
    return _ANSWER


async def serve() -> None:
    """Serves on a free port of the loopback until killed; prints the port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(
        _echo,
        request_deserializer=pb.PredictRequest.FromString,
        response_serializer=pb.PredictResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("benchmarks.Echo", {"Predict": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve())
