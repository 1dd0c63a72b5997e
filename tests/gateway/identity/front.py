"""A gateway's front: real identity, real pipeline, real gRPC; only the models are missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.sdk.metrics import MeterProvider
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway.calls import Call
from gateway.identity.identifier import Identifier
from gateway.identity.issuers import NOBODY, Issuers
from gateway.identity.mesh import Mesh
from gateway.identity.signatures import Signatures
from gateway.ledger.ledger import Ledger
from gateway.ledger.sources import Source
from gateway.limits.admission import Admission
from gateway.metering import Meter
from gateway.pipeline import Pipeline
from gateway.settings import GatewaySettings
from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.api_keys import KeyStore
from penstock.service.credentials import KeyDraft, KeyRecord
from penstock.service.prices import PriceTable
from penstock.service.tenants import TenantRecord, TenantStore

PEPPER = b"a pepper of the tests"
PREDICT = "/penstock.api.inference.v1.InferenceService/Predict"
REQUEST = pb.PredictRequest(model="m").SerializeToString()

_SERVICES = (
    pb.DESCRIPTOR.services_by_name["InferenceService"],
    embeddings_pb2.DESCRIPTOR.services_by_name["EmbeddingsService"],
)


@dataclass
class Probe:
    """Answers, and remembers who called."""

    calls: list[Call] = field(default_factory=list)

    async def Predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:  # noqa: N802
        self.calls.append(call)
        return pb.PredictResponse(predictions=[pb.Prediction(label=request.model)])

    async def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyResponse:  # noqa: N802
        self.calls.append(call)
        return pb.ClassifyResponse()

    async def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, call: Call
    ) -> AsyncIterator[pb.GenerateResponse]:
        self.calls.append(call)
        yield pb.GenerateResponse(delta=request.prompt)

    async def EmbedStream(  # noqa: N802
        self, requests: AsyncIterator[embeddings_pb2.EmbedStreamRequest], call: Call
    ) -> AsyncIterator[embeddings_pb2.EmbedStreamResponse]:
        self.calls.append(call)
        async for request in requests:
            yield embeddings_pb2.EmbedStreamResponse(group_id=request.group_id)


@dataclass
class Front:
    """A running one."""

    address: str
    channel: grpc.aio.Channel
    probe: Probe
    identifier: Identifier

    async def call(
        self,
        authorization: str | None = None,
        *more: tuple[str, str],
        method: str = PREDICT,
        body: bytes = REQUEST,
    ) -> str:
        """``OK``, or the reason for which the call was refused; never a handler's failure."""
        own = () if authorization is None else (("authorization", authorization),)
        return await outcome(self.channel, method, body, (*own, *more))


async def outcome(
    channel: grpc.aio.Channel, method: str, body: bytes, metadata: Sequence[tuple[str, str]]
) -> str:
    """How a raw unary call ends."""
    raw: Any = channel.unary_unary(method)
    try:
        await raw(body, metadata=tuple(metadata), timeout=20)
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return "OK"


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The refusal's reason, with the code that must go with it."""
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if packed is None:
        return f"{error.code().name}: {error.details()}"
    for detail in status_pb2.Status.FromString(packed).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return error.code().name


@dataclass
class Records:
    """The stored tenants and keys that a test's callers have."""

    redis: Redis
    keys: KeyStore
    tenants: TenantStore

    async def tenant(self, name: str = "acme", **fields: Any) -> TenantRecord:
        """A tenant that may do everything unless the test says otherwise."""
        fields.setdefault("highest_tier", 1)
        return await self.tenants.ensure(TenantRecord(id=name, **fields))

    async def key(self, tenant: str = "acme", **fields: Any) -> tuple[KeyRecord, str]:
        """A key, and its text or shared secret if it has one."""
        public_key = fields.pop("public_key", "")
        fields.setdefault("scopes", ("*",))
        draft = KeyDraft(tenant=tenant, name="test", **fields)
        return await self.keys.add(draft, public_key=public_key)


def records_of(redis: Redis) -> Records:
    """The stores on that Redis."""
    return Records(redis, KeyStore(redis, PEPPER), TenantStore(redis))


@asynccontextmanager
async def fronted(
    redis: Redis,
    *,
    issuers: Issuers = NOBODY,
    mesh: Mesh | None = None,
    credentials: grpc.ServerCredentials | None = None,
    client: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[Front]:
    """A front on a free port; with TLS where ``credentials`` and ``client`` say so."""
    keys, provider, probe = KeyStore(redis, PEPPER), MeterProvider(), Probe()
    identifier = Identifier(
        keys,
        TenantStore(redis),
        issuers=issuers,
        signatures=Signatures(keys, redis, "penstock"),
        mesh=mesh,
    )
    settings = GatewaySettings(key_pepper=SecretStr(PEPPER.decode()))
    meter = Meter(provider.get_meter("test"))
    source = Source.create(Path(settings.ledger_dir))
    ledger = Ledger(source, settings, redis, PriceTable())
    limits = Admission(redis, redis, source.name, None)
    ledger.start()
    limits.start()
    pipeline = Pipeline(identifier, limits, meter, ledger, settings)
    size = settings.max_metadata_bytes
    options = [("grpc.max_metadata_size", size), ("grpc.absolute_max_metadata_size", size)]
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *options])
    server.add_generic_rpc_handlers([pipeline.serve(one, probe) for one in _SERVICES])
    if credentials is None:
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        channel = grpc.aio.insecure_channel(address)
    else:
        address = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
        channel = grpc.aio.secure_channel(address, client or grpc.ssl_channel_credentials())
    await server.start()
    try:
        yield Front(address, channel, probe, identifier)
    finally:
        await channel.close()
        await server.stop(None)
        await ledger.stop()
        await limits.stop()
        await identifier.close()
        provider.shutdown()
