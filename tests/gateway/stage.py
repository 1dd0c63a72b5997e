"""Everything between a handler and a replica, for real; only the replica follows a script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis
from tritonclient.grpc import service_pb2 as oip

from gateway.calls import Call, Principal
from gateway.catalog import Catalog
from gateway.dispatch import Dispatch
from gateway.routing import Router
from gateway.tensors import bytes_tensor
from penstock.service.packages import ModelSpec, triton_name
from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry, ReplicaRecord, ReplicaRegistry, ServedModel
from tests.gateway.answered import ints
from tests.gateway.scripted_replica import Context, ScriptedReplica

EVERYTHING = frozenset({"*"})


class StoryReplica(ScriptedReplica):
    """Tells ``words`` on every stream, one a message, and then says why it stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.words: Sequence[str] = ()
        self.finish_reason = "stop"
        self.word_seconds = 0.0
        """From one word to the next."""
        self.falls_silent_after = -1
        """Words after which a stream goes on for ever without a word; -1 for never."""
        self.streams: list[oip.ModelInferRequest] = []
        self.left = asyncio.Event()

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[oip.ModelInferRequest], _: Context
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        try:
            async for request in requests:
                self.streams.append(request)
                for written, word in enumerate(self.words, 1):
                    await self.gate.wait()
                    await asyncio.sleep(self.word_seconds)
                    if written > self.falls_silent_after >= 0:
                        await asyncio.Event().wait()
                    last = written == len(self.words)
                    message = _story(word, self.finish_reason if last else "", written)
                    message.infer_response.parameters["triton_final_response"].bool_param = last
                    yield message
        finally:
            self.left.set()


def _story(word: str, reason: str, written: int) -> oip.ModelStreamInferResponse:
    outputs = [
        bytes_tensor("text_output", [word.encode()]),
        bytes_tensor("finish_reason", [reason.encode()]),
        ints("num_input_tokens", [5], "UINT32"),
        ints("num_output_tokens", [written], "UINT32"),
    ]
    response = oip.ModelStreamInferResponse()
    for tensor in outputs:
        response.infer_response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=[1])
        response.infer_response.raw_output_contents.append(tensor.data)
    return response


@dataclass
class Stage:
    """A dispatch over a catalog that has read a real registry."""

    redis: Redis
    registry: ModelRegistry
    replicas: ReplicaRegistry
    router: Router
    catalog: Catalog
    dispatch: Dispatch
    replica: StoryReplica

    async def serve(self, *specs: ModelSpec) -> None:
        """Registers the models and lets the replica announce them."""
        for spec in specs:
            await self.registry.register(f"file:///{spec.name}", _digest(spec), spec)
        served = tuple(
            ServedModel(
                name=spec.name,
                version=spec.version,
                triton_name=triton_name(spec.name, spec.version),
                instances=8,
                max_batch=spec.max_batch,
            )
            for spec in specs
        )
        await self.replicas.announce(
            ReplicaRecord(id="r1", endpoint=self.replica.endpoint, region="here", models=served)
        )
        await self.refresh()

    async def refresh(self) -> None:
        """Makes the catalog read the registry now."""
        await self.catalog.stop()
        await self.catalog.start()


@asynccontextmanager
async def staged(redis_url: str) -> AsyncIterator[Stage]:
    """A stage on a database of its own, empty at the start."""
    redis = connect(redis_url.rpartition("/")[0] + "/9")
    await redis.flushdb()
    router = Router("here")
    registry, replicas = ModelRegistry(redis), ReplicaRegistry(redis)
    catalog = Catalog(registry, replicas, router)
    replica = StoryReplica()
    await replica.server.start()
    stage = Stage(
        redis, registry, replicas, router, catalog, Dispatch(catalog, router, 5.0), replica
    )
    await stage.refresh()
    try:
        yield stage
    finally:
        replica.gate.set()
        await catalog.stop()
        await router.close()
        await replica.server.stop(None)
        await redis.aclose()


def call_of(*models: str, seconds: float = 20.0) -> Call:
    """A call by a key that may use these models, or all."""
    now = time.monotonic()
    allowed = frozenset(models) or None
    principal = Principal("acme", "key", EVERYTHING, 1, allowed)
    return Call("request", "/test/Method", principal, now, now + seconds)


def _digest(spec: ModelSpec) -> str:
    return f"sha256:{spec.name}{spec.version}"
