"""The scheduler's parts, wired once."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.metrics import CallbackOptions, Observation
from redis.exceptions import RedisError

from penstock.errors import DependencyUnavailable
from penstock.service.ledger.chains import Chain
from penstock.service.objects import Objects
from penstock.service.redis import connect
from penstock.service.tasks import end_tasks
from penstock.service.telemetry import start_metrics
from scheduler.export import Exporter
from scheduler.redis_scripts import take_turn
from scheduler.retention import Defaults, Sweeper
from scheduler.sealing import Sealer
from scheduler.settings import SchedulerSettings

log = logging.getLogger(__name__)


class Scheduler:
    """One scheduler process: start it, and stop it with time for its work to finish."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings = settings
        self._holder = secrets.token_hex(8)
        self._control = connect(settings.control_redis_url)
        key = settings.ledger_key.get_secret_value().encode()
        objects = Objects(settings.ledger_uri)
        audit, usage = Chain(objects, "audit", key), Chain(objects, "usage", key)
        self._sealer = Sealer(
            self._control,
            audit,
            usage,
            every_seconds=settings.seal_seconds,
            most_events=settings.seal_events,
        )
        payloads = Objects(settings.payload_uri) if settings.payload_uri else None
        self._sweeper = Sweeper(self._control, (audit, usage), payloads, _defaults(settings))
        self._exporter = self._make_exporter(usage)
        meter, self._metrics = start_metrics("penstock-scheduler", settings)
        meter.create_observable_counter(
            "penstock.ledger.sealed", [self._observe_sealed], description="Events sealed here."
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Begins the work; returns the address of the server. Raises OSError or RuntimeError."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        host = self._settings.listen.rpartition(":")[0]
        port = self._server.add_insecure_port(self._settings.listen)
        await self._server.start()
        self._begin(self._sealer.run())
        self._begin(self._sweep())
        if self._exporter is not None:
            self._begin(self._exporter.run())
        for name in ("", health.SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Breaks the work off, which is safe at any point, and ends."""
        await self._health.enter_graceful_shutdown()
        if not await end_tasks(self._tasks, self._settings.drain_seconds):
            log.error("some work did not end in time")
        await self._server.stop(self._settings.drain_seconds)
        if self._exporter is not None:
            await self._exporter.close()
        await self._control.aclose()
        self._metrics.shutdown()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _sweep(self) -> None:
        seconds = self._settings.sweep_seconds
        while True:
            try:
                if await take_turn(self._control, "sweep", self._holder, seconds):
                    changed = await self._sweeper.sweep()
                    if changed:
                        log.info("removed what was too old", extra={"changed": changed})
            except (RedisError, DependencyUnavailable) as error:
                log.warning("the sweep waits for a store", extra={"cause": str(error)})
            except Exception:
                log.exception("the sweep failed")
            await asyncio.sleep(seconds)

    def _make_exporter(self, usage: Chain) -> Exporter | None:
        settings = self._settings
        if not settings.cloudevents_sink:
            return None
        token = settings.cloudevents_token.get_secret_value()
        return Exporter(self._control, usage, settings.cloudevents_sink, token, self._holder)

    def _observe_sealed(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self._sealer.sealed_events)


def _defaults(settings: SchedulerSettings) -> Defaults:
    return Defaults(
        settings.usage_retention_seconds,
        settings.audit_retention_seconds,
        settings.payload_retention_seconds,
    )
