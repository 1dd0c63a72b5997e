"""A whole gateway in front of a scripted replica, with its ledger in a folder of the test's."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pydantic import SecretStr
from tritonclient.grpc import service_pb2 as oip

from gateway.server import Gateway
from gateway.settings import GatewaySettings
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service.api_keys import KeyStore
from penstock.service.tenants import TenantRecord, TenantStore
from tests.gateway.ledger.seen import shipped
from tests.gateway.scripted_replica import Context, doubled, floats
from tests.gateway.specs import spec
from tests.gateway.stage import Stage, staged

PEPPER = "a pepper of the tests"
ECHO = spec("tabular-regression", name="echo", labels=(), features=({"name": "x"},))
STORIES = spec("text-generation", name="storyteller", labels=())
PRICES = """
currency: EUR
prices:
  - {unit: row, input: 5}
  - {unit: token, input: 1, output: 10}
"""
Metadata = tuple[tuple[str, str], ...]


async def double(request: oip.ModelInferRequest, _: Context) -> oip.ModelInferResponse:
    """What the replica answers."""
    return doubled(request)


def rows(count: int) -> pb.PredictRequest:
    """A call that costs five millionths a row."""
    data = struct.pack(f"<{count}f", *range(count))
    return pb.PredictRequest(
        model="echo", matrix=pb.FeatureMatrix(rows=count, columns=1, data=data)
    )


def echo_request(count: int) -> oip.ModelInferRequest:
    """The same by the Open Inference Protocol."""
    request = oip.ModelInferRequest(model_name="echo")
    request.inputs.add(name="features", datatype="FP32", shape=[count, 1])
    request.raw_input_contents.append(floats([1.0] * count))
    return request


@dataclass
class Metered:
    """The gateway and who calls it."""

    stage: Stage
    gateway: Gateway
    channel: grpc.aio.Channel
    keys: KeyStore
    metadata: Metadata

    @property
    def stub(self) -> Any:
        """InferenceService."""
        return InferenceServiceStub(self.channel)

    async def with_key(self, *scopes: str, **options: Any) -> Metadata:
        """Metadata of another key of the tenant."""
        tenant = options.pop("tenant", "acme")
        await TenantStore(self.stage.redis).ensure(TenantRecord(id=tenant, highest_tier=1))
        _, text = await self.keys.create(tenant, "test", scopes or ("*",), **options)
        return (("authorization", f"Bearer {text}"),)

    async def events(self, count: int) -> list[CallEvent]:
        """What has been shipped, as soon as it is so many events; more of them fail."""
        async with asyncio.timeout(10):
            while len(found := await self._shipped()) < count:
                await asyncio.sleep(0.02)
        assert len(found) == count
        return found

    async def _shipped(self) -> list[CallEvent]:
        (events,) = (await shipped(self.stage.redis)).values() or [[]]
        return events


@asynccontextmanager
async def metered(redis_url: str, folder: Path) -> AsyncIterator[Metered]:
    """Starts the gateway; at the end every event must have been shipped once."""
    (folder / "prices.yaml").write_text(PRICES)
    async with staged(redis_url) as stage:
        stage.replica.script = double
        await stage.serve(ECHO, STORIES)
        store = redis_url.rpartition("/")[0] + "/9"
        settings = GatewaySettings(
            listen="127.0.0.1:0",
            key_pepper=SecretStr(PEPPER),
            control_redis_url=store,
            soft_redis_url=store,
            ledger_dir=str(folder / "ledger"),
            prices_file=str(folder / "prices.yaml"),
            drain_seconds=0.5,
        )
        gateway = Gateway(settings)
        address = await gateway.start()
        keys = KeyStore(stage.redis, PEPPER.encode())
        await TenantStore(stage.redis).ensure(TenantRecord(id="acme", highest_tier=1))
        _, text = await keys.create("acme", "test", ("*",))
        channel = grpc.aio.insecure_channel(address)
        try:
            yield Metered(stage, gateway, channel, keys, (("authorization", f"Bearer {text}"),))
        finally:
            stage.replica.gate.set()
            await channel.close()
            await gateway.stop()
