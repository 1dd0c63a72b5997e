"""The gateway's parts, wired once."""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from gateway import reflection
from gateway.catalog import Catalog
from gateway.dispatch import Dispatch
from gateway.identity import Identifier
from gateway.limits.admission import Admission
from gateway.limits.desk import TIMEOUT_SECONDS
from gateway.limits.status import LimitStatus
from gateway.metering import Meter
from gateway.pipeline import Pipeline
from gateway.routing import Router
from gateway.services.embeddings import EmbeddingsService
from gateway.services.inference import InferenceService
from gateway.services.models import ModelsService
from gateway.services.oip import OpenInferenceService
from gateway.services.usage import UsageService
from gateway.settings import GatewaySettings
from gateway.tls import Certificates
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
from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry, ReplicaRegistry
from penstock.service.telemetry import start_metrics

log = logging.getLogger(__name__)


class Gateway:
    """One gateway process: start it, and stop it with time for open calls to finish."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._control = connect(settings.control_redis_url)
        self._soft = connect(settings.soft_redis_url)
        # Names what this start of the process leases and writes down; never used again.
        source = secrets.token_hex(16)
        # Limits wait for no slow Redis, so they have connections of their own.
        self._rates = connect(settings.soft_redis_url, timeout_seconds=TIMEOUT_SECONDS)
        self._spending = connect(settings.control_redis_url, timeout_seconds=TIMEOUT_SECONDS)
        self._limits = Admission(self._rates, self._spending, source, None)
        self._left = LimitStatus(self._rates, self._spending)
        otel, self._metrics = start_metrics("penstock-gateway", settings)
        pepper = settings.key_pepper.get_secret_value().encode()
        self._router = Router(settings.region)
        self._catalog = Catalog(
            ModelRegistry(self._control), ReplicaRegistry(self._soft), self._router
        )
        self._dispatch = Dispatch(self._catalog, self._router, settings.stream_gap_seconds)
        self._pipeline = Pipeline(
            Identifier(KeyStore(self._control, pepper)),
            self._limits,
            Meter(otel),
            settings,
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(settings))

    async def start(self) -> str:
        """Serves; returns the address. Raises RedisError, OSError or RuntimeError if it cannot."""
        await self._catalog.start()
        self._limits.start()
        names = self._register()
        host = self._settings.listen.rpartition(":")[0]
        if self._settings.tls_certificate:
            certificates = Certificates(
                Path(self._settings.tls_certificate), Path(self._settings.tls_private_key)
            )
            port = self._server.add_secure_port(self._settings.listen, certificates.credentials())
        else:
            port = self._server.add_insecure_port(self._settings.listen)
        await self._server.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Refuses new calls, lets open ones finish for drain_seconds, then ends."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_seconds)
        await self._limits.stop()
        await self._catalog.stop()
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
            (usage_pb2, "UsageService", UsageService(self._left)),
            # In the contract, and answered UNIMPLEMENTED.
            (multimodal_pb2, "MultimodalService", None),
            (files_pb2, "FilesService", None),
            (batch_pb2, "BatchService", None),
            (finetuning_pb2, "FineTuningService", None),
            (tenants_pb2, "TenantsService", None),
            (keys_pb2, "KeysService", None),
            (audit_pb2, "AuditService", None),
        ]


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
