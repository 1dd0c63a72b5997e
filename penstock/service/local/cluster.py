"""A whole cluster of real processes on this machine: started in order, watched, drained."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.service.local.building import PackageBuild
from penstock.service.local.keeper import Keeper, end_cluster
from penstock.service.local.ports import free_port
from penstock.service.local.processes import ProcessId, end_all, members
from penstock.service.local.programs import Programs, Stores
from penstock.service.local.readiness import ServedVersion, gateway_view
from penstock.service.local.records import LOCAL_TENANT, Records
from penstock.service.local.redis_server import RedisServer
from penstock.service.local.state import (
    DEFAULT_STATE_DIR,
    LOCK_FILE,
    ClusterState,
    ProcessRecord,
    locked,
    read_state,
    remove_state,
    write_private,
    write_state,
)
from penstock.service.local.supervision import Supervised, Supervisor

DEFAULT_PORT = 8400
CRASHES_ALLOWED = 2
"""A program that ends more often while the cluster starts will not come up."""
_POLL_SECONDS = 0.1
_SETTLING_SECONDS = 1.0
"""Every gateway has read the registry again after this, not only the one that was asked."""
_LOG_LINES = 15


class ClusterFailed(Exception):
    """The cluster did not come up; the message says which part, and what its log says."""


class AlreadyRunning(Exception):
    """Another cluster uses the state directory."""


@dataclass(frozen=True)
class ClusterOptions:
    """What to run."""

    state_dir: Path = DEFAULT_STATE_DIR
    artifacts: Path = DEFAULT_STATE_DIR / "artifacts"
    """Built packages; several clusters may share them."""
    models: tuple[str, ...] = ()
    """Demo models by name; empty means all."""
    port: int = 0
    """The gateway's port if it is free; 0 takes any."""
    gateways: int = 1
    """Gateway processes, which share the port."""
    replicas: int = 1
    """Tritons, each with its agent and every model."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for all services, such as PENSTOCK_GATEWAY_DRAIN_SECONDS."""
    start_seconds: float = 300.0
    """How long models may take to be built and to answer."""


class LocalCluster:
    """Use as a context manager, or call ``start`` and, at the end, ``stop``."""

    def __init__(self, options: ClusterOptions, report: Callable[[str], None] = print) -> None:
        self.options = options
        self.versions: list[ServedVersion] = []
        """What is served, as last seen while starting."""
        self._report = report
        self._ending = contextlib.ExitStack()
        self._state: ClusterState | None = None
        self._state_lock = threading.Lock()
        self._supervisor = Supervisor(lambda records: self._update(processes=tuple(records)))

    def start(self) -> None:
        """Returns when every model answers; what was started ends again if that fails.

        Raises AlreadyRunning, BuildFailed, ClusterFailed, RedisMissing.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Drains everything in reverse; nothing is left running. May be called again."""
        self._ending.close()

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def state(self) -> ClusterState:
        """What the state file says now."""
        if self._state is None:
            raise ClusterFailed("the cluster does not run")
        return self._state

    @property
    def endpoint(self) -> str:
        """host:port of the gateway."""
        return self.state.endpoint

    @property
    def api_key(self) -> str:
        """A key that may do everything."""
        return self.state.api_key

    @property
    def records(self) -> Records:
        """To register packages and to make keys."""
        return records_of(self.state)

    def process(self, name: str) -> Supervised:
        """One process by name, such as gateway-0, triton-0, agent-0 or redis."""
        return self._supervisor[name]

    def _start(self) -> None:
        options = self.options
        self._hold_state_dir()
        cluster_id = secrets.token_hex(8)
        programs = Programs(options.state_dir, cluster_id, options.settings)
        redis = RedisServer(options.state_dir / "redis", free_port())
        self._state = ClusterState(
            cluster_id=cluster_id,
            owner=_this_process(),
            endpoint=f"127.0.0.1:{free_port(options.port)}",
            control_redis_url=redis.url(0),
            soft_redis_url=redis.url(1),
            key_pepper=self._kept("pepper", lambda: secrets.token_hex(32)),
        )
        write_state(options.state_dir, self._state)
        keeper = Keeper(options.state_dir, programs.environment, programs.log("keeper"))
        self._ending.callback(keeper.dismiss)
        self._ending.callback(self._forget)
        self._ending.callback(self._supervisor.stop, self._report)
        build = PackageBuild(options.artifacts, options.models, programs.environment, self._report)
        self._ending.callback(build.stop)
        self._supervisor.start(programs.redis(redis.command()))
        if not redis.wait():
            raise ClusterFailed(self._story("redis", "does not answer"))
        self._prepare_redis()
        self._start_services(programs)
        self._wait_until_ready(build)

    def _hold_state_dir(self) -> None:
        folder = self.options.state_dir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._ending.enter_context(locked(folder / LOCK_FILE, wait=False))
        except BlockingIOError:
            raise AlreadyRunning(f"a cluster runs in {folder} already") from None
        killed = read_state(folder)
        if killed is not None:
            self._report("ending what a killed cluster left")
            end_cluster(killed)
            remove_state(folder)

    def _prepare_redis(self) -> None:
        records = self.records
        records.forget_replicas()
        records.forget_models(self.options.artifacts)
        kept = self.options.state_dir / "key"
        if kept.exists() and not records.is_usable(kept.read_text()):
            kept.unlink()
        # Again: the key's file may be lost while Redis still knows that there was one.
        key = self._kept("key", lambda: records.first_key(LOCAL_TENANT, "development", again=True))
        self._update(api_key=key)

    def _start_services(self, programs: Programs) -> None:
        options, state = self.options, self.state
        stores = Stores(
            control_redis_url=state.control_redis_url,
            soft_redis_url=state.soft_redis_url,
            ledger_uri=(options.state_dir / "segments").resolve().as_uri(),
            ledger_key=self._kept("ledger-key", lambda: secrets.token_hex(32)),
            payload_uri=(options.state_dir / "kept").resolve().as_uri(),
        )
        self._supervisor.start(programs.scheduler(free_port(), stores))
        ports = [free_port() for _ in range(options.replicas)]
        self._supervisor.start(*(programs.triton(i, port) for i, port in enumerate(ports)))
        self._supervisor.start(*(programs.agent(i, port, stores) for i, port in enumerate(ports)))
        port = int(state.endpoint.rpartition(":")[2])
        share_port = options.gateways > 1
        self._supervisor.start(
            *(
                programs.gateway(i, port, stores, state.key_pepper, share_port=share_port)
                for i in range(options.gateways)
            )
        )

    def _wait_until_ready(self, build: PackageBuild) -> None:
        deadline = time.monotonic() + self.options.start_seconds
        wanted: set[str] = set()
        ready: set[str] = set()
        built = False
        while not (built and wanted <= ready):
            built = build.done()
            for package in build.finished():
                wanted.add(self.records.register(package).name)
            with gateway_view(self.endpoint, self.api_key) as view:
                self.versions = view.versions() or []
            for version in self.versions:
                if version.replicas >= self.options.replicas and version.model not in ready:
                    ready.add(version.model)
                    self._report(f"{version.model} answers")
            self._fail_if_hopeless()
            if time.monotonic() > deadline:
                late = ", ".join(sorted(wanted - ready)) or "any model"
                raise ClusterFailed(self._story("agent-0", f"did not bring up {late} in time"))
            time.sleep(_POLL_SECONDS)
        if self.options.gateways > 1:
            time.sleep(_SETTLING_SECONDS)

    def _fail_if_hopeless(self) -> None:
        for version in self.versions:
            if version.failed:
                name = f"{version.model} {version.version}"
                raise ClusterFailed(self._story("agent-0", f"cannot load {name}"))
        for child in self._supervisor.children():
            if child.restarts > CRASHES_ALLOWED:
                raise ClusterFailed(self._story(child.program.name, "keeps ending"))

    def _story(self, program: str, what: str) -> str:
        log = self.process(program).program.log
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"{program} {what}; the end of {log}:", *lines])

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        """A secret that outlives one run of the cluster."""
        path = self.options.state_dir / name
        if not path.exists():
            write_private(path, make())
        return path.read_text()

    def _update(self, **changes: Any) -> None:
        with self._state_lock:
            self._state = self.state.model_copy(update=changes)
            write_state(self.options.state_dir, self._state)

    def _forget(self) -> None:
        """Kills whatever outlived its own end, such as a Triton stub without its server."""
        state = self.state
        end_all([record.process for record in state.processes], 0.0)
        end_all(members(state.cluster_id), 0.0)
        remove_state(self.options.state_dir)
        self._state = None


def records_of(state: ClusterState) -> Records:
    """The records of a cluster that runs, also from another process."""
    return Records(state.control_redis_url, state.soft_redis_url, state.key_pepper)


def _this_process() -> ProcessRecord:
    me = ProcessId.of(os.getpid())
    started = me.started_ticks if me else 0
    return ProcessRecord(
        name="supervisor", pid=os.getpid(), started_ticks=started, grace_seconds=90
    )
