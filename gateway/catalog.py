"""What can be called right now: the registry's models and replicas, as last read from Redis."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from redis.exceptions import RedisError

from gateway.calls import Principal
from gateway.routing import Router
from penstock.errors import ModelNotFound, VersionNotFound
from penstock.service.packages import ModelSpec, triton_name
from penstock.service.registry import ModelRecord, ModelRegistry, ReplicaRecord, ReplicaRegistry

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
DISBELIEF_SECONDS = 6.0
"""An empty list of replicas is believed only after their records' time to live."""


@dataclass(frozen=True, slots=True)
class Target:
    """One version of a model, ready to be called."""

    model: str
    version: str
    triton_name: str
    spec: ModelSpec


class Catalog:
    """The last known models and replicas; with Redis away, they stay as they were."""

    def __init__(self, models: ModelRegistry, replicas: ReplicaRegistry, router: Router) -> None:
        self._registry = models
        self._replica_registry = replicas
        self._router = router
        self._models: Mapping[str, ModelRecord] = {}
        self._targets: dict[str, dict[str, Target]] = {}
        self._failures: Mapping[tuple[str, str], str] = {}
        self._last_replicas_at = 0.0
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads everything once, then keeps reading; raises RedisError if the first read fails."""
        await self._refresh()
        self._task = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """Stops reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` after each refresh."""
        self._listeners.append(listener)

    def models(self) -> Mapping[str, ModelRecord]:
        """Every registered model by name."""
        return self._models

    def ready(self, name: str, version: str) -> int:
        """Replicas that serve the version now."""
        return self._router.count(triton_name(name, version))

    def failure(self, name: str, version: str) -> str | None:
        """Why a version could not be loaded, if it could not."""
        return self._failures.get((name, version))

    def target(self, model: str, version: str, principal: Principal) -> Target:
        """The version to call: the pinned one, or one drawn by traffic weight among those served.

        Raises ModelNotFound also for a model that the caller may not see, and VersionNotFound.
        """
        targets = self._targets.get(model)
        if targets is None or not principal.may_use(model):
            raise ModelNotFound(model)
        if version:
            if version not in targets:
                raise VersionNotFound(model, version)
            return targets[version]
        traffic = self._models[model].traffic
        if len(traffic) == 1 and traffic[0].version in targets:
            return targets[traffic[0].version]
        shares = [s for s in traffic if s.weight > 0 and s.version in targets]
        served = [s for s in shares if self._router.count(targets[s.version].triton_name)]
        candidates = served or shares
        if not candidates:
            raise ModelNotFound(model)
        drawn = random.choices(candidates, [s.weight for s in candidates])[0]  # noqa: S311
        return targets[drawn.version]

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._refresh()
            except RedisError as error:
                log.warning("registry unreadable; keeping the last known", extra={"cause": error})
            except Exception:
                log.exception("registry not understood; keeping the last known")

    async def _refresh(self) -> None:
        models = await self._registry.models()
        if models != self._models:
            self._models, self._targets = models, _targets(models)
        self._take_replicas(await self._replica_registry.replicas())
        self._failures = await self._replica_registry.failures()
        for listener in self._listeners:
            listener()

    def _take_replicas(self, records: list[ReplicaRecord]) -> None:
        now = time.monotonic()
        if records:
            self._last_replicas_at = now
        elif now - self._last_replicas_at < DISBELIEF_SECONDS:
            return
        self._router.update(records)


def _targets(models: Mapping[str, ModelRecord]) -> dict[str, dict[str, Target]]:
    return {
        name: {
            version: Target(name, version, triton_name(name, version), found.spec)
            for version, found in record.versions.items()
            if found.state == "wanted"
        }
        for name, record in models.items()
    }
