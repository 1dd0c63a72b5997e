"""A real gRPC server that behaves as a test tells it: for what a healthy gateway cannot show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from penstock.api.admin.v1 import keys_pb2, tenants_pb2
from penstock.api.audit.v1 import audit_pb2 as audit
from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.models.v1 import models_pb2 as models
from penstock.api.usage.v1 import usage_pb2 as usage

Context = grpc.ServicerContext
Behaviour = Callable[[Any, Context], Any]


class Scripted:
    """Answers each method with the behaviour that the test put under its name."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.seconds_left: list[float] = []
        self.began = threading.Event()
        """Set when a stream's call has reached the server."""
        self.ended = threading.Event()
        """Set when a stream's call has ended, whoever ended it."""

    def serve(self, service: ServiceDescriptor) -> grpc.GenericRpcHandler:
        """Handlers for every method of the contract."""
        handlers = {method.name: self._handler(method) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]

        def answer(request: Any, context: Context) -> Any:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            self.seconds_left.append(context.time_remaining())
            return self.behaviours[method.name](request, context)

        def stream(request: Any, context: Context) -> Iterator[Any]:
            context.add_callback(self.ended.set)
            self.began.set()
            yield from answer(request, context)

        return make(
            stream if method.server_streaming else answer,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )


class Served:
    """The server around it; every start takes the same port."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.scripted = Scripted()
        self.server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        modules = (inference, embeddings, models, tenants_pb2, keys_pb2, usage, audit)
        self.server.add_generic_rpc_handlers(
            [
                self.scripted.serve(service)
                for module in modules
                for service in module.DESCRIPTOR.services_by_name.values()
            ]
        )
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self.server.add_insecure_port(address)
        else:
            self.port = self.server.add_secure_port(address, credentials)
        self.server.start()

    @property
    def endpoint(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Sends GOAWAY, waits for open calls that long, and ends."""
        self.server.stop(grace_seconds).wait()


def classified(request: inference.ClassifyRequest, _: Context) -> inference.ClassifyResponse:
    """Calls every text the label that it is."""
    response = inference.ClassifyResponse(
        results=[
            inference.Classification(labels=[inference.RankedLabel(label=text, confidence=0.75)])
            for text in request.texts
        ]
    )
    response.metadata.request_id = "request-1"
    return response


def failing_with(code: grpc.StatusCode, times: int, then: Behaviour) -> Behaviour:
    """Fails the first calls without any details, as a proxy does, then behaves."""
    left = [times]

    def behave(request: Any, context: Context) -> Any:
        if left[0] > 0:
            left[0] -= 1
            context.abort(code, "from the proxy")
        return then(request, context)

    return behave


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return condition()
