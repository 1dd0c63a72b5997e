"""GRPCInferenceService, the Open Inference Protocol, so that unmodified tritonclient programs work.

Identified, limited, routed and metered as our own families are. Rpcs that manage a server
(repository, shared memory, trace, log) have no method here and are therefore UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from importlib.metadata import version
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from gateway.adapters.generation import StepReader, reporting
from gateway.adapters.oip import infer_response, model_metadata, usage_of
from gateway.adapters.usage import added, token_count
from gateway.calls import Call
from gateway.catalog import Catalog, Target
from gateway.dispatch import Dispatch
from gateway.services.pipelining import in_order
from gateway.validation.oip import check_infer, priority, read_inputs
from penstock.api.inference.v1.inference_pb2 import FINISH_REASON_UNSPECIFIED
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import NotFound, PenstockError, ReplicaUnavailable, TaskMismatch
from penstock.service.signatures import GENERATION

MOST_REQUESTS_IN_FLIGHT = 16
"""Requests of one stream that run at once; more wait unread."""
FINAL = "triton_final_response"
"""Response parameter: whether this is the last response to its request."""
VERSION = version("penstock")

Inferred = tuple[pb.ModelInferResponse, metadata_pb2.Usage]
_ANY_TASK: frozenset[str] = frozenset()


class OpenInferenceService:
    """Runs and describes models for clients of the Open Inference Protocol."""

    def __init__(self, dispatch: Dispatch, catalog: Catalog) -> None:
        self._dispatch = dispatch
        self._catalog = catalog

    async def ServerLive(self, _: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        """Who can ask is answered."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _: pb.ServerReadyRequest, call: Call) -> pb.ServerReadyResponse:
        """Whether any model that the caller may use can answer."""
        ready = any(
            self._catalog.ready(name, version)
            for name, record in self._catalog.models().items()
            if call.principal.may_use(name)
            for version in record.versions
        )
        return pb.ServerReadyResponse(ready=ready)

    async def ServerMetadata(
        self, _: pb.ServerMetadataRequest, call: Call
    ) -> pb.ServerMetadataResponse:
        """Names Penstock, not the servers behind it."""
        return pb.ServerMetadataResponse(name="penstock", version=VERSION)

    async def ModelReady(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """Whether a replica serves the version; False also for a model that is not there."""
        try:
            target = self._dispatch.resolve(request.name, request.version, _ANY_TASK, call)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._catalog.ready(target.model, target.version) > 0)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, call: Call
    ) -> pb.ModelMetadataResponse:
        """The model's inputs and outputs."""
        target = self._dispatch.resolve(request.name, request.version, _ANY_TASK, call)
        versions = self._catalog.models()[target.model].versions
        wanted = [name for name, version in versions.items() if version.state == "wanted"]
        return model_metadata(target, wanted)

    async def ModelInfer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        """Runs a model once."""
        response, call.usage = await self._infer(request, call)
        return response

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], call: Call
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answers in the order of the requests; one that fails says so and ends nothing else."""

        def begin(request: pb.ModelInferRequest) -> Coroutine[Any, Any, Inferred] | None:
            return None if self._streams(request, call) else self._infer(request, call)

        billed = metadata_pb2.Usage()
        async with aclosing(in_order(requests, begin, MOST_REQUESTS_IN_FLIGHT)) as work:
            async for request, task in work:
                try:
                    if task is not None:
                        response, usage = await task
                        response.parameters[FINAL].bool_param = True
                        call.usage = billed = added(billed, usage)
                        yield pb.ModelStreamInferResponse(infer_response=response)
                        continue
                    async with aclosing(self._generate(request, call)) as messages:
                        before = billed
                        async for response, usage in messages:
                            call.usage = billed = added(before, usage)
                            yield pb.ModelStreamInferResponse(infer_response=response)
                except PenstockError as error:
                    yield _refused(request, error)

    def _target(self, request: pb.ModelInferRequest, call: Call) -> Target:
        check_infer(request, call.model)
        return self._dispatch.resolve(request.model_name, request.model_version, _ANY_TASK, call)

    def _streams(self, request: pb.ModelInferRequest, call: Call) -> bool:
        try:
            return self._target(request, call).spec.task == GENERATION
        except PenstockError:
            return False

    async def _infer(self, request: pb.ModelInferRequest, call: Call) -> Inferred:
        target = self._target(request, call)
        if target.spec.task == GENERATION:
            raise TaskMismatch(target.model, target.spec.task, "ModelInfer")
        rows, inputs = read_inputs(request, target.spec)
        answer = await self._dispatch.infer(target, rows, inputs, call, tier=priority(request))
        return infer_response(request, target, answer), usage_of(target, answer, rows)

    async def _generate(
        self, request: pb.ModelInferRequest, call: Call
    ) -> AsyncGenerator[Inferred, None]:
        target = self._target(request, call)
        _, inputs = read_inputs(request, target.spec)
        inputs = reporting(inputs, target.spec)
        reader = StepReader(target.spec)
        answers = self._dispatch.stream(target, inputs, call, tier=priority(request))
        async with aclosing(answers):
            async for answer in answers:
                step = reader.read(answer)
                last = step.finish_reason != FINISH_REASON_UNSPECIFIED
                response = infer_response(request, target, answer)
                response.parameters[FINAL].bool_param = last
                yield response, token_count(step.tokens_read, step.tokens_written)
                if last:
                    return
        raise ReplicaUnavailable(target.model)


def _refused(request: pb.ModelInferRequest, error: PenstockError) -> pb.ModelStreamInferResponse:
    refused = pb.ModelStreamInferResponse(error_message=error.message)
    refused.infer_response.id = request.id
    return refused
