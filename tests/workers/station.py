"""One replica as it runs in production: a launcher with its tritonserver, and its agent."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer
from penstock.service.packages import ModelSpec, triton_name
from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry, ReplicaRegistry
from tests.workers.tiny_packages import tabular_package

SHARED_MEMORY = Path("/dev/shm")


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 20.0) -> None:
    """Waits for a condition to hold; fails the test if it does not in time."""
    give_up = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < give_up, "the condition did not come to hold"
        await asyncio.sleep(0.02)


class Station:
    """Starts the processes of one replica and looks at them from outside."""

    def __init__(self, folder: Path, control: RedisServer, soft_url: str) -> None:
        self.folder = folder
        self.control = control
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.soft = connect(soft_url)
        self.wanted = connect(control.url())
        self.models = ModelRegistry(self.wanted)
        self.replicas = ReplicaRegistry(self.soft)
        self.triton = InferenceServerClient(
            self.endpoint, channel_args=[("grpc.max_reconnect_backoff_ms", 200)]
        )
        self.environment = {
            **os.environ,
            "PENSTOCK_TRITON_LISTEN": self.endpoint,
            "PENSTOCK_TRITON_MODEL_REPOSITORY": str(folder / "repository"),
            "PENSTOCK_TRITON_FIRST_RESTART_SECONDS": "0.1",
            "PENSTOCK_TRITON_SHUTDOWN_SECONDS": "3",
            "PENSTOCK_WORKER_TRITON_ENDPOINT": self.endpoint,
            "PENSTOCK_WORKER_ADVERTISE": self.endpoint,
            "PENSTOCK_WORKER_CONTROL_REDIS_URL": control.url(),
            "PENSTOCK_WORKER_SOFT_REDIS_URL": soft_url,
            "PENSTOCK_WORKER_MODEL_REPOSITORY": str(folder / "repository"),
            "PENSTOCK_WORKER_PACKAGE_CACHE": str(folder / "cache"),
            "PENSTOCK_WORKER_REPLICA_ID": "station",
            "PENSTOCK_WORKER_REGION": "here",
            "PENSTOCK_WORKER_POLL_SECONDS": "0.2",
            "PENSTOCK_WORKER_HEARTBEAT_SECONDS": "0.5",
            "PENSTOCK_WORKER_PROBE_SECONDS": "0.5",
            "PENSTOCK_WORKER_PROBE_TIMEOUT_SECONDS": "2",
            "PENSTOCK_WORKER_FIRST_RETRY_SECONDS": "0.2",
            "PENSTOCK_WORKER_LONGEST_RETRY_SECONDS": "0.5",
            "PENSTOCK_WORKER_RETIRE_DELAY_SECONDS": "0.3",
            "PENSTOCK_WORKER_DRAIN_SECONDS": "2",
        }
        self.launcher = self.start("workers.triton")
        self.agent = self.start("workers")

    def start(self, module: str) -> subprocess.Popen[bytes]:
        """Runs one of our programs with this replica's settings."""
        log = self.folder / f"{module}.log"
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module], env=self.environment, stdout=output, stderr=output
            )

    async def stop(self) -> None:
        """Ends everything."""
        for process in (self.agent, self.launcher):
            process.terminate()
        for process in (self.agent, self.launcher):
            await asyncio.to_thread(process.wait)
        await self.triton.close()
        await self.soft.aclose()
        await self.wanted.aclose()

    def package(
        self, name: str, version: str = "1", gain: float = 1.0, instances: int = 1
    ) -> tuple[ModelSpec, str]:
        """Writes a tiny package; returns its spec and digest."""
        directory = self.folder / "artifacts" / name / version
        return tabular_package(directory, name, version, gain=gain, instances=instances)

    async def register(self, spec: ModelSpec, digest: str, *, take_traffic: bool = False) -> None:
        """Makes the package a wanted version."""
        uri = (self.folder / "artifacts" / spec.name / spec.version).as_uri()
        await self.models.register(uri, digest, spec, take_traffic=take_traffic)

    async def serve(
        self, name: str, version: str = "1", gain: float = 1.0, instances: int = 1
    ) -> None:
        """Builds and registers a tiny model, and waits until it is announced."""
        spec, digest = self.package(name, version, gain, instances)
        await self.register(spec, digest, take_traffic=True)
        await until(lambda: self.announces(name, version))

    def events(self, name: str, model: str) -> list[dict[str, Any]]:
        """What the agents have logged about the model under that event."""
        lines = (self.folder / "workers.log").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [r for r in records if r["event"] == name and r.get("model") == model]

    async def announces(self, name: str, version: str = "1") -> bool:
        """Whether gateways are told that this replica serves the version."""
        return (name, version) in await self.announced()

    async def announced(self) -> set[tuple[str, str]]:
        """Every version that gateways are told about."""
        records = await self.replicas.replicas()
        return {(model.name, model.version) for record in records for model in record.models}

    async def loaded(self) -> set[str]:
        """Triton's names of the models it is ready to run."""
        index = await self.triton.get_model_repository_index()
        return {model.name for model in index.models if model.state == "READY"}

    async def scores(self, name: str, version: str = "1") -> NDArray[np.float32]:
        """The model's answer for one row."""
        features = InferInput("features", [1, 3], "FP32")
        features.set_data_from_numpy(np.array([[0.1, 0.2, 0.3]], np.float32))
        answer = await self.triton.infer(triton_name(name, version), [features])
        return np.asarray(answer.as_numpy("scores"))

    def server(self) -> psutil.Process | None:
        """The tritonserver, while there is one."""
        return next(iter(self._below("tritonserver")), None)

    def model_process(self, name: str, version: str = "1") -> psutil.Process | None:
        """The process that runs the model, while there is one."""
        return next(iter(self.model_processes(name, version)), None)

    def model_processes(self, name: str, version: str = "1") -> list[psutil.Process]:
        """The processes that run the model, one an instance."""
        return alive(self._below(f"/{triton_name(name, version)}/"))

    def processes(self) -> list[psutil.Process]:
        """The launcher and everything below it."""
        launcher = psutil.Process(self.launcher.pid)
        return [launcher, *launcher.children(recursive=True)]

    def _below(self, text: str) -> list[psutil.Process]:
        found = []
        for process in self.processes()[1:]:
            try:
                if any(text in part for part in process.cmdline()[:2]):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not."""
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
