"""The serving agent: keeps one tritonserver equal to the registry's desired state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from redis.exceptions import RedisError

from penstock.service.packages import triton_name
from penstock.service.registry import ModelRecord, ModelRegistry, ReplicaRecord, VersionRecord
from workers.announcer import Announcer
from workers.settings import AgentSettings
from workers.triton_client import TritonDown, TritonRefused, TritonSlow
from workers.version_life import VersionLife, Workshop

log = logging.getLogger(__name__)

_SLOW_ANSWERS_BELIEVED = 3
"""So many late answers in a row, and Triton counts as down."""


class ServingAgent:
    """Starts and ends the lives of model versions, and tells them when Triton goes and comes."""

    def __init__(self, settings: AgentSettings, models: ModelRegistry, workshop: Workshop) -> None:
        self._settings = settings
        self._models = models
        self._shop = workshop
        self._lives: dict[str, VersionLife] = {}
        """By Triton model name."""
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self._announcer = Announcer(workshop.replicas, self.describe, settings.heartbeat_seconds)
        self._slow_answers = 0
        self._registry_known = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until told to stop; then withdraws, lets calls finish, and leaves all loaded."""
        self._announcer.start()
        while not stopping.is_set():
            loaded = await self._observe_triton()
            await self._read_registry()
            if loaded is not None and self._registry_known:
                await self._remove_strays(loaded)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._settings.poll_seconds)
        await self._stop()

    def describe(self) -> ReplicaRecord:
        """This replica with the versions that are ready."""
        return ReplicaRecord(
            id=self._settings.replica_id,
            endpoint=self._settings.advertise or self._settings.triton_endpoint,
            region=self._settings.region,
            models=tuple(life.served() for life in self._lives.values() if life.state == "ready"),
        )

    def measure(self, meter: Meter) -> None:
        """Exposes how many versions are in each state, and how often each failed."""

        def states(_: CallbackOptions) -> list[Observation]:
            counts: dict[str, int] = {}
            for life in self._lives.values():
                counts[life.state] = counts.get(life.state, 0) + 1
            return [Observation(count, {"state": state}) for state, count in counts.items()]

        def failures(_: CallbackOptions) -> list[Observation]:
            return [
                Observation(life.failures, {"model": life.name, "version": life.version})
                for life in self._lives.values()
            ]

        meter.create_observable_gauge("penstock.worker.versions", [states])
        meter.create_observable_gauge("penstock.worker.recent_failures", [failures])

    async def _observe_triton(self) -> frozenset[str] | None:
        """What Triton has loaded; None while that cannot be known."""
        asked_at = time.monotonic()
        try:
            loaded = await self._shop.triton.loaded()
        except (TritonSlow, TritonRefused) as error:
            self._slow_answers += 1
            log.warning("tritonserver is slow", extra={"cause": str(error)})
            if self._slow_answers < _SLOW_ANSWERS_BELIEVED:
                return None
            self._triton_is_down(asked_at)
            return None
        except TritonDown:
            self._triton_is_down(asked_at)
            return None
        self._slow_answers = 0
        if not self._shop.triton_up.is_set():
            log.info("tritonserver is up", extra={"loaded": len(loaded)})
            self._shop.triton_up.set()
        for life in self._lives.values():
            life.observe(loaded, asked_at)
        return loaded

    def _triton_is_down(self, asked_at: float) -> None:
        if self._shop.triton_up.is_set():
            log.error("tritonserver is down")
            self._shop.triton_up.clear()
        for life in self._lives.values():
            life.observe(frozenset(), asked_at)

    async def _read_registry(self) -> None:
        try:
            models = await self._models.models()
        except RedisError as error:
            log.warning("registry unreadable; keeping what is loaded", extra={"cause": str(error)})
            return
        if not models and self._lives:
            # Retired models keep their record, so this is a Redis that lost its data.
            log.error("registry is empty; keeping what is loaded")
            return
        wanted = _wanted(models)
        if not self._registry_known:
            await self._shop.packages.prune([record.digest for _, record in wanted.values()])
        self._registry_known = True
        for name, life in list(self._lives.items()):
            record = wanted.get(name, (None, None))[1]
            if name not in self._retiring and (record is None or record.digest != life.digest):
                log.info("retiring", extra={"model": life.name, "version": life.version})
                self._retiring[name] = asyncio.create_task(self._retire(name, life))
        for name, (model, record) in wanted.items():
            if name not in self._lives:
                life = VersionLife(model, record, self._shop, self._announcer.changed)
                self._lives[name] = life
                life.start()

    async def _retire(self, name: str, life: VersionLife) -> None:
        try:
            await life.retire()
        finally:
            del self._lives[name], self._retiring[name]
        await self._shop.packages.prune([life.digest for life in self._lives.values()])

    async def _remove_strays(self, loaded: frozenset[str]) -> None:
        """Removes what an agent before this one left and nobody wants any more."""
        entries = await asyncio.to_thread(self._shop.repository.names)
        for name in (loaded | entries) - self._lives.keys():
            log.info("removing a stray", extra={"triton_name": name})
            if name in loaded:
                with contextlib.suppress(TritonDown, TritonSlow, TritonRefused):
                    await self._shop.triton.unload(name, self._settings.drain_seconds)
            await asyncio.to_thread(self._shop.repository.remove, name)

    async def _stop(self) -> None:
        ready = [life for life in self._lives.values() if life.state == "ready"]
        await self._announcer.withdraw()
        log.info("withdrawn", extra={"ready": len(ready)})
        tasks = list(self._retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(life.abandon() for life in ready), return_exceptions=True)
        await asyncio.gather(*(life.abandon() for life in self._lives.values()))
        if ready:
            await asyncio.sleep(self._settings.retire_delay_seconds)
            await asyncio.gather(*(life.quiet(self._settings.drain_seconds) for life in ready))


def _wanted(models: dict[str, ModelRecord]) -> dict[str, tuple[str, VersionRecord]]:
    """Triton name -> model and version, those that take most traffic first."""
    found = [
        (record.weight(version.spec.version), record.name, version)
        for record in models.values()
        for version in record.versions.values()
        if version.state == "wanted"
    ]
    found.sort(key=lambda item: (-item[0], item[1], item[2].created_at))
    return {triton_name(name, version.spec.version): (name, version) for _, name, version in found}
