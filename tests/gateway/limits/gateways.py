"""Several real gateway processes over one real Redis and one scripted replica."""

from __future__ import annotations

import asyncio
import random
import signal
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from redis.exceptions import RedisError
from tritonclient.grpc import service_pb2 as oip

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service import keys
from penstock.service.api_keys import KeyStore
from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer
from penstock.service.packages import triton_name
from penstock.service.quotas import NO_LIMITS, Budget, Limits
from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry, ReplicaRecord, ReplicaRegistry, ServedModel
from penstock.service.tenants import TenantRecord, TenantStore
from tests.gateway.limits.windows import Admitted
from tests.gateway.scripted_replica import Context, ScriptedReplica, doubled
from tests.gateway.specs import spec
from tests.gateway.test_process import PEPPER, gateway

PREDICT = "/penstock.api.inference.v1.InferenceService/Predict"
MODELS = ("quick", "slow")
SLOW_SECONDS = 0.3
_COLUMNS = 3


@dataclass
class Load:
    """What callers of one key have seen."""

    admitted: list[Admitted] = field(default_factory=list)
    refused: Counter[grpc.StatusCode] = field(default_factory=Counter)

    def units(self) -> int:
        return sum(call.units for call in self.admitted)


class CountingReplica(ScriptedReplica):
    """Knows how many rows of the slow model were under way at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self.script = self._answer

    async def _answer(self, request: oip.ModelInferRequest, _: Context) -> oip.ModelInferResponse:
        self.requests.clear()
        if not request.model_name.startswith("slow"):
            return doubled(request)
        rows = request.inputs[0].shape[0]
        self._now += rows
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(SLOW_SECONDS)
        finally:
            self._now -= rows
        return doubled(request)


class Gateways:
    """The processes, the Redis that may be stopped or emptied, and callers."""

    def __init__(self, server: RedisServer, redis_process: Any) -> None:
        self.soft = connect(server.url(1))
        self.control = connect(server.url(0))
        self.replica = CountingReplica()
        self.redis_process = redis_process
        self.processes: list[Any] = []
        self._channels: list[grpc.aio.Channel] = []
        self._keys = KeyStore(self.control, PEPPER.encode())

    async def key(
        self, limits: Limits = NO_LIMITS, budgets: tuple[Budget, ...] = ()
    ) -> tuple[tuple[str, str], ...]:
        """Metadata of a new key with these limits."""
        await TenantStore(self.control).ensure(TenantRecord(id="acme", highest_tier=1))
        record, text = await self._keys.create("acme", "test", ["*"])
        record = record.model_copy(update={"limits": limits, "budgets": budgets})
        await self.control.set(keys.api_key(record.id), record.model_dump_json())
        return (("authorization", f"Bearer {text}"),)

    async def start(self, count: int, server: RedisServer, stack: AsyncExitStack) -> None:
        """Starts the replica and, side by side, the gateways."""
        await self.replica.server.start()
        await self._register()
        stack.push_async_callback(_cancelled, asyncio.create_task(self._announce()))
        urls = {"CONTROL_REDIS_URL": server.url(0), "SOFT_REDIS_URL": server.url(1)}
        started = await asyncio.gather(
            *[stack.enter_async_context(gateway(server.url(0), **urls)) for _ in range(count)]
        )
        self.processes = [process for process, _ in started]
        self._channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address))
            for _, address in started
        ]

    async def call_on(
        self, metadata: Any, load: Load, until: float, model: str = "quick", most_rows: int = 3
    ) -> None:
        """One caller: any gateway, again and again, as soon as it may come back."""
        chance = random.Random()
        methods: list[Any] = [channel.unary_unary(PREDICT) for channel in self._channels]
        while time.monotonic() < until:
            rows = chance.randint(1, most_rows)
            sent = time.monotonic()
            try:
                await chance.choice(methods)(_predict(model, rows), metadata=metadata, timeout=10)
            except grpc.aio.AioRpcError as error:
                load.refused[error.code()] += 1
                told = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms", "300")
                wait = min(1.0, int(told) / 1000) if int(told) > 0 else 1.0
                await asyncio.sleep(wait * chance.uniform(1.0, 1.2))
            else:
                load.admitted.append(Admitted(sent, time.monotonic(), rows))

    def kill_one(self) -> None:
        """SIGKILL."""
        self.processes[0].kill()

    @asynccontextmanager
    async def stopped_redis(self) -> AsyncIterator[None]:
        """Redis neither answers nor closes a connection."""
        self.redis_process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.redis_process.send_signal(signal.SIGCONT)

    async def _register(self) -> None:
        registry = ModelRegistry(self.control)
        for name in MODELS:
            await registry.register(f"file:///{name}", f"sha256:{name}", _spec(name))

    async def _announce(self) -> None:
        served = tuple(
            ServedModel(
                name=name,
                version="1",
                triton_name=triton_name(name, "1"),
                instances=64,
                max_batch=64,
            )
            for name in MODELS
        )
        record = ReplicaRecord(id="r1", endpoint=self.replica.endpoint, region="", models=served)
        while True:
            with suppress(RedisError):
                await ReplicaRegistry(self.soft).announce(record)
            await asyncio.sleep(1.0)


@asynccontextmanager
async def gateways(folder: Path, count: int) -> AsyncIterator[Gateways]:
    """``count`` gateways, ready to be called."""
    server = RedisServer(folder, free_port())
    process = await asyncio.create_subprocess_exec(
        *server.command(), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        assert await asyncio.to_thread(server.wait)
        running = Gateways(server, process)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(running.control.aclose)
            stack.push_async_callback(running.soft.aclose)
            stack.push_async_callback(running.replica.server.stop, None)
            await running.start(count, server, stack)
            yield running
    finally:
        process.terminate()
        await process.wait()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _spec(name: str) -> Any:
    return spec("tabular-regression", name=name)


def _predict(model: str, rows: int) -> bytes:
    data = struct.pack(f"<{rows * _COLUMNS}f", *[1.0] * rows * _COLUMNS)
    matrix = pb.FeatureMatrix(rows=rows, columns=_COLUMNS, data=data)
    return pb.PredictRequest(model=model, matrix=matrix).SerializeToString()
