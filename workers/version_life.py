"""One model version on this replica, from its package to its last answer.

fetch -> verify -> write the entry -> load -> warm up -> ready (watched) -> withdrawn -> drained ->
unloaded. Whatever fails is told to the registry, and tried again after a pause that grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from redis.exceptions import RedisError

from penstock.errors import PackageInvalid, PenstockError
from penstock.service.packages import triton_name
from penstock.service.registry import ReplicaRegistry, ServedModel, VersionRecord
from penstock.service.signatures import signature
from workers.package_cache import PackageCache
from workers.repository import Repository
from workers.settings import AgentSettings
from workers.triton_client import (
    Figures,
    ModelDead,
    TritonClient,
    TritonDown,
    TritonRefused,
    TritonSlow,
)

log = logging.getLogger(__name__)

STABLE_SECONDS = 60.0
"""A model that was ready this long is loaded again without a pause."""
_QUIET_SECONDS = 0.5
_LET_GO_SECONDS = 2.0
"""How long a living model may take to notice that a probe has been cancelled."""
_RELOAD_SECONDS = 1.0
"""How long a model that is loaded again may take to go first."""

State = Literal["waiting", "loading", "ready", "failed", "draining"]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every version's life needs; shared by all."""

    settings: AgentSettings
    packages: PackageCache
    repository: Repository
    triton: TritonClient
    replicas: ReplicaRegistry
    load_limit: asyncio.Semaphore
    triton_up: asyncio.Event


class VersionLife:
    """Loads one version, watches it, loads it again when it fails, and at last unloads it."""

    def __init__(
        self, name: str, record: VersionRecord, workshop: Workshop, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.version = record.spec.version
        self.digest = record.digest
        self.triton_name = triton_name(name, self.version)
        self.state: State = "waiting"
        self.failures = 0
        """Loads that failed, and times it stopped answering, since it was last stable."""
        self._record = record
        self._shop = workshop
        self._changed = changed
        self._ready_since = 0.0
        self._untried = True
        self._instances = 1 if signature(record.spec).streams else record.spec.instances
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._labels = {"model": name, "version": self.version}

    def start(self) -> None:
        """Begins loading."""
        self._task = asyncio.create_task(self._live())

    def served(self) -> ServedModel:
        """How the version is announced."""
        spec = self._record.spec
        return ServedModel(
            name=self.name,
            version=self.version,
            triton_name=self.triton_name,
            instances=self._shop.repository.executions(spec),
            max_batch=spec.max_batch,
        )

    def observe(self, loaded: frozenset[str], asked_at: float) -> None:
        """Takes note of what Triton had loaded at ``asked_at`` (time.monotonic())."""
        seen = self.state == "ready" and self._ready_since < asked_at
        if seen and self.triton_name not in loaded:
            self._lost.set()

    async def abandon(self) -> None:
        """Stops looking after the version and leaves it loaded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def retire(self) -> None:
        """Withdraws the version, lets what it was sent finish, and unloads it."""
        was_ready = self.state == "ready"
        await self.abandon()
        self._become("draining")
        if was_ready:
            await asyncio.sleep(self._shop.settings.retire_delay_seconds)
            await self.quiet(self._shop.settings.drain_seconds)
        with contextlib.suppress(RedisError):
            await self._shop.replicas.clear_failure(self.name, self.version)
        await self._unload(self._shop.settings.drain_seconds)
        log.info("unloaded", extra=self._labels)

    async def quiet(self, longest_seconds: float) -> None:
        """Waits until the model has stopped giving answers, or for as long as allowed."""
        give_up = time.monotonic() + longest_seconds
        before = -1
        with contextlib.suppress(TritonDown, TritonSlow, TritonRefused):
            while time.monotonic() < give_up:
                now = (await self._shop.triton.figures(self.triton_name)).answered
                if now == before:
                    return
                before = now
                await asyncio.sleep(_QUIET_SECONDS)

    async def _live(self) -> None:
        while True:
            self._become("waiting")
            await self._shop.triton_up.wait()
            reason = await self._try_to_load()
            if reason is None:
                reason = await self._serve()
                if time.monotonic() - self._ready_since >= STABLE_SECONDS:
                    self.failures = 0
                log.warning("no longer ready", extra={**self._labels, "reason": reason})
                self._become("waiting")
            else:
                await self._report(reason)
            self.failures += 1
            if self.state == "failed" or self.failures > 1:
                await asyncio.sleep(self._pause_seconds())

    async def _try_to_load(self) -> str | None:
        """Loads and warms the version; says what went wrong, in words fit for operators."""
        started = time.monotonic()
        self._become("loading")
        try:
            await self._load()
        except PenstockError as error:
            log.error("not loaded", extra={**self._labels, "cause": error.message})
            return error.message
        except TritonDown:
            return "tritonserver ended while the model was loading"
        except TritonSlow:
            return f"not loaded within {self._shop.settings.load_timeout_seconds:g} s"
        except TritonRefused as error:
            log.error("not loaded", extra={**self._labels, "cause": str(error)})
            return "tritonserver could not load or run it; the agent's log says why"
        except Exception:
            log.exception("not loaded", extra=self._labels)
            return "the agent could not load it; its log says why"
        log.info("ready", extra={**self._labels, "seconds": round(time.monotonic() - started, 2)})
        return None

    async def _load(self) -> None:
        shop, name = self._shop, self.triton_name
        package, spec = await shop.packages.obtain(self._record.package_uri, self.digest)
        if spec != self._record.spec:
            raise PackageInvalid("model.yaml is not what was registered")
        async with shop.load_limit:
            present = name in await shop.triton.loaded()
            untried, self._untried = self._untried, False
            if present and untried and shop.repository.describes(name, package, spec):
                # An agent before this one loaded it; if it answers, nobody need notice.
                with contextlib.suppress(TritonRefused, TritonSlow):
                    await shop.triton.probe(name, spec, shop.settings.probe_timeout_seconds)
                    return
            try:
                if present:
                    await self._unload(_RELOAD_SECONDS)
                await asyncio.to_thread(shop.repository.write, name, package, spec)
                await shop.triton.load(name, shop.settings.load_timeout_seconds)
                await shop.triton.probe(name, spec, shop.settings.load_timeout_seconds)
            except (TritonRefused, TritonSlow, PenstockError):
                await self._unload(_RELOAD_SECONDS)
                raise

    async def _serve(self) -> str:
        """Announces the version and watches it; returns why it is no longer ready."""
        self._lost.clear()
        self._ready_since = time.monotonic()
        self._become("ready")
        with contextlib.suppress(RedisError):
            await self._shop.replicas.clear_failure(self.name, self.version)
        before: Figures | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self._shop.settings.probe_seconds)
                return "tritonserver no longer has it"
            try:
                now = await self._shop.triton.figures(self.triton_name)
                if self._instances > 1 and before is not None and now.some_die(before):
                    return "one of its instances is dead"
                if before is None or now.answered == before.answered:
                    await self._probe_instances(now.answered)
                    now = await self._shop.triton.figures(self.triton_name)
                before = now
            except TritonDown:
                return "tritonserver is down"
            except TritonSlow:
                log.warning("tritonserver is too busy to be asked", extra=self._labels)
            except TritonRefused as error:
                return f"it does not answer: {error}"

    async def _probe_instances(self, answered: int) -> None:
        """Raises TritonRefused if an instance is dead or the model answers nobody.

        Triton takes idle instances in turn, so as many probes as instances reach each of them.
        """
        for _ in range(self._instances):
            await self._probe_twice(answered)

    async def _probe_twice(self, answered: int) -> None:
        timeout = self._shop.settings.probe_timeout_seconds
        for last in (False, True):
            try:
                await self._shop.triton.probe(self.triton_name, self._record.spec, timeout)
                return
            except TritonSlow:
                if await self._lets_go(answered):
                    return
                if last:
                    raise TritonRefused(f"two probes took more than {timeout:g} s") from None
            except TritonRefused as refusal:
                if "OVERLOADED" in str(refusal):
                    return
                if last or isinstance(refusal, ModelDead):
                    raise

    async def _lets_go(self, answered: int) -> bool:
        """Whether the model got through anything since, be it only dropping a late probe: then it
        is busy, not dead."""
        give_up = time.monotonic() + _LET_GO_SECONDS
        while (await self._shop.triton.figures(self.triton_name)).answered == answered:
            if time.monotonic() >= give_up:
                return False
            await asyncio.sleep(0.1)
        log.info("busy", extra=self._labels)
        return True

    async def _report(self, reason: str) -> None:
        self._become("failed")
        with contextlib.suppress(RedisError):
            await self._shop.replicas.fail(self.name, self.version, reason)

    async def _unload(self, longest_seconds: float) -> None:
        """Unloads the model, or tries to; removes its entry."""
        try:
            if not await self._shop.triton.unload(self.triton_name, longest_seconds):
                log.warning("still unloading", extra=self._labels)
        except (TritonDown, TritonSlow, TritonRefused) as error:
            log.warning("not unloaded", extra={**self._labels, "cause": str(error)})
        await asyncio.to_thread(self._shop.repository.remove, self.triton_name)

    def _pause_seconds(self) -> float:
        settings = self._shop.settings
        doubled = settings.first_retry_seconds * 2.0 ** min(self.failures - 1, 16)
        return min(doubled, settings.longest_retry_seconds)

    def _become(self, state: State) -> None:
        if state != self.state:
            announced = "ready" in (state, self.state)
            self.state = state
            if announced:
                self._changed()
