"""The gateway's parts, wired once."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from redis.asyncio import Redis
from tritonclient.grpc import service_pb2

from gateway import reflection
from gateway.catalog import Catalog
from gateway.dispatch import Dispatch
from gateway.identity.identifier import Identifier
from gateway.identity.issuers import read_issuers
from gateway.identity.mesh import Mesh
from gateway.identity.signatures import Signatures
from gateway.ledger.ledger import Ledger
from gateway.ledger.sources import Source
from gateway.ledger.usage import UsageReader
from gateway.limits.admission import Admission
from gateway.limits.desk import TIMEOUT_SECONDS
from gateway.limits.status import LimitStatus
from gateway.metering import Meter
from gateway.payloads import PayloadKeeper
from gateway.pipeline import Pipeline
from gateway.routing import Router
from gateway.services.audit import AuditService, ledger_reader
from gateway.services.embeddings import EmbeddingsService
from gateway.services.inference import InferenceService
from gateway.services.keys import KeysService
from gateway.services.models import ModelsService
from gateway.services.oip import OpenInferenceService
from gateway.services.tenants import TenantsService
from gateway.services.usage import UsageService
from gateway.settings import GatewaySettings
from gateway.tls import open_ports
from gateway.validation.admin import Cluster
from penstock.api.admin.v1 import keys_pb2, tenants_pb2
from penstock.api.audit.v1 import audit_pb2
from penstock.api.batch.v1 import batch_pb2
from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.files.v1 import files_pb2
from penstock.api.finetuning.v1 import finetuning_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.models.v1 import models_pb2
from penstock.api.multimodal.v1 import multimodal_pb2
from penstock.api.usage.v1 import usage_pb2
from penstock.service.api_keys import KeyStore
from penstock.service.objects import Objects
from penstock.service.prices import PriceTable
from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry, ReplicaRegistry
from penstock.service.telemetry import start_metrics
from penstock.service.tenants import TenantStore

log = logging.getLogger(__name__)


class Gateway:
    """One gateway process: start it, and stop it with time for open calls to finish."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Opens files. Raises OSError, PricesInvalid."""
        self._settings = settings
        self._control = connect(settings.control_redis_url)
        self._soft = connect(settings.soft_redis_url)
        # Limits wait for no slow Redis, so they have connections of their own.
        self._rates = connect(settings.soft_redis_url, timeout_seconds=TIMEOUT_SECONDS)
        self._spending = connect(settings.control_redis_url, timeout_seconds=TIMEOUT_SECONDS)
        otel, self._metrics = start_metrics("penstock-gateway", settings)
        pepper = settings.key_pepper.get_secret_value().encode()
        self._keys, self._tenants = KeyStore(self._control, pepper), TenantStore(self._control)
        issuers = read_issuers(settings.issuers_file)
        known = frozenset(one.issuer for one in issuers.issuers)
        self._router = Router(settings.region)
        self._catalog = Catalog(
            ModelRegistry(self._control), ReplicaRegistry(self._soft), self._router
        )
        self._dispatch = Dispatch(self._catalog, self._router, settings.stream_gap_seconds)
        self._identifier = Identifier(
            self._keys,
            self._tenants,
            issuers=issuers,
            signatures=Signatures(self._keys, self._control, settings.signature_audience),
            mesh=_mesh(settings),
        )
        self._prices = PriceTable.read(settings.prices_file)
        self._cluster = Cluster(issuers=known, currency=self._prices.currency)
        self._source = Source.create(Path(settings.ledger_dir))
        self._payloads = _payload_keeper(settings)
        self._payloads.measure(otel)
        self._ledger = Ledger(self._source, settings, self._control, self._prices, self._payloads)
        self._limits = Admission(self._rates, self._spending, self._source.name, self._prices)
        left = LimitStatus(self._rates, self._spending)
        self._usage = UsageService(UsageReader(self._control), self._prices.currency, left)
        self._pipeline = Pipeline(
            self._identifier,
            self._limits,
            Meter(otel),
            self._ledger,
            settings,
        )
        self._audit = _audit_service(settings, self._control, self._payloads)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(settings))

    async def start(self) -> str:
        """Serves; returns the address. Raises RedisError, OSError or RuntimeError if it cannot."""
        await self._catalog.start()
        self._ledger.start()
        self._payloads.start()
        self._limits.start()
        names = self._register()
        host = self._settings.listen.rpartition(":")[0]
        port = open_ports(self._server, self._settings)
        await self._server.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Refuses new calls, lets open ones finish for drain_seconds, then ends."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_seconds)
        await self._ledger.stop()
        await self._payloads.stop()
        await self._limits.stop()
        await self._catalog.stop()
        await self._identifier.close()
        await self._router.close()
        clients = (self._control, self._soft, self._rates, self._spending)
        await asyncio.gather(*(client.aclose() for client in clients))
        self._metrics.shutdown()

    def _register(self) -> list[str]:
        names = []
        for module, name, servicer in self._services():
            descriptor = module.DESCRIPTOR.services_by_name[name]
            handler = self._pipeline.serve(descriptor, servicer)
            self._server.add_generic_rpc_handlers((handler,))
            names.append(descriptor.full_name)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names.append(health.SERVICE_NAME)
        reflection.enable(self._server, names)
        return names

    def _services(self) -> list[tuple[Any, str, object]]:
        dispatch, catalog = self._dispatch, self._catalog
        return [
            (inference_pb2, "InferenceService", InferenceService(dispatch)),
            (embeddings_pb2, "EmbeddingsService", EmbeddingsService(dispatch)),
            (models_pb2, "ModelsService", ModelsService(catalog)),
            (service_pb2, "GRPCInferenceService", OpenInferenceService(dispatch, catalog)),
            (tenants_pb2, "TenantsService", TenantsService(self._tenants, self._cluster)),
            (keys_pb2, "KeysService", KeysService(self._keys, self._tenants, self._cluster)),
            (usage_pb2, "UsageService", self._usage),
            (audit_pb2, "AuditService", self._audit),
            # In the contract, and answered UNIMPLEMENTED.
            (multimodal_pb2, "MultimodalService", None),
            (files_pb2, "FilesService", None),
            (batch_pb2, "BatchService", None),
            (finetuning_pb2, "FineTuningService", None),
        ]


def _mesh(settings: GatewaySettings) -> Mesh | None:
    if settings.client_ca or settings.trusted_forwarders:
        return Mesh(settings.forwarders())
    return None


def _payload_keeper(settings: GatewaySettings) -> PayloadKeeper:
    objects = Objects(settings.payload_uri) if settings.payload_uri else None
    return PayloadKeeper(objects, settings.region, settings.payload_max_bytes)


def _audit_service(
    settings: GatewaySettings, control: Redis, payloads: PayloadKeeper
) -> AuditService | None:
    """None, which answers UNIMPLEMENTED, where no ledger is configured."""
    key = settings.ledger_key.get_secret_value().encode()
    if not settings.ledger_uri or not key:
        return None
    return AuditService(ledger_reader(control, settings.ledger_uri, key), payloads)


def _options(settings: GatewaySettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(settings.share_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # gRPC unpacks a message in full before its size or its caller is checked: some KiB of gzip
        # from anybody would cost gigabytes. So only identity is accepted; clients are told.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]
