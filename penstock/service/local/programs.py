"""The programs of a local cluster: what each is started with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.service.local.processes import CLUSTER_VARIABLE
from penstock.service.local.state import SOURCE_TREE
from penstock.service.local.supervision import Program

_OURS = ("PENSTOCK_GATEWAY_", "PENSTOCK_WORKER_", "PENSTOCK_TRITON_", "PENSTOCK_SCHEDULER_")


@dataclass(frozen=True)
class Stores:
    """What every service needs to know."""

    control_redis_url: str
    soft_redis_url: str
    ledger_uri: str
    ledger_key: str
    payload_uri: str


class Programs:
    """Builds programs that log to, and keep their files in, one state directory."""

    def __init__(self, state_dir: Path, cluster_id: str, settings: Mapping[str, str]) -> None:
        self._state_dir = state_dir
        self._settings = dict(settings)
        # Settings of other clusters that the shell may hold are not meant for this one.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        self.environment = inherited | {
            CLUSTER_VARIABLE: cluster_id,
            "PYTHONUNBUFFERED": "1",
        }

    def redis(self, command: list[str]) -> Program:
        """The control and the soft Redis, which are one server here."""
        return self._program("redis", command, {}, grace_seconds=10.0)

    def scheduler(self, port: int, stores: Stores) -> Program:
        """The scheduler, which seals the ledger."""
        settings = {
            "PENSTOCK_SCHEDULER_LISTEN": f"127.0.0.1:{port}",
            "PENSTOCK_SCHEDULER_CONTROL_REDIS_URL": stores.control_redis_url,
            "PENSTOCK_SCHEDULER_SOFT_REDIS_URL": stores.soft_redis_url,
            "PENSTOCK_SCHEDULER_LEDGER_URI": stores.ledger_uri,
            "PENSTOCK_SCHEDULER_LEDGER_KEY": stores.ledger_key,
            "PENSTOCK_SCHEDULER_PAYLOAD_URI": stores.payload_uri,
            "PENSTOCK_SCHEDULER_SEAL_SECONDS": "2",
        }
        return self._module("scheduler", "scheduler", settings, grace_seconds=15.0)

    def triton(self, index: int, port: int) -> Program:
        """One tritonserver with its launcher."""
        settings = {
            "PENSTOCK_TRITON_LISTEN": f"127.0.0.1:{port}",
            "PENSTOCK_TRITON_MODEL_REPOSITORY": str(self._repository(index)),
        }
        return self._module(f"triton-{index}", "workers.triton", settings, grace_seconds=20.0)

    def agent(self, index: int, port: int, stores: Stores) -> Program:
        """The serving agent of one tritonserver."""
        settings = {
            "PENSTOCK_WORKER_TRITON_ENDPOINT": f"127.0.0.1:{port}",
            "PENSTOCK_WORKER_ADVERTISE": f"127.0.0.1:{port}",
            "PENSTOCK_WORKER_CONTROL_REDIS_URL": stores.control_redis_url,
            "PENSTOCK_WORKER_SOFT_REDIS_URL": stores.soft_redis_url,
            "PENSTOCK_WORKER_MODEL_REPOSITORY": str(self._repository(index)),
            "PENSTOCK_WORKER_PACKAGE_CACHE": str(self._folder(f"packages-{index}")),
            "PENSTOCK_WORKER_REPLICA_ID": f"local-{index}",
        }
        return self._module(f"agent-{index}", "workers", settings, grace_seconds=20.0)

    def gateway(
        self, index: int, port: int, stores: Stores, pepper: str, *, share_port: bool
    ) -> Program:
        """One gateway process; several can share the port."""
        settings = {
            "PENSTOCK_GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "PENSTOCK_GATEWAY_SHARE_PORT": str(share_port).lower(),
            "PENSTOCK_GATEWAY_CONTROL_REDIS_URL": stores.control_redis_url,
            "PENSTOCK_GATEWAY_SOFT_REDIS_URL": stores.soft_redis_url,
            "PENSTOCK_GATEWAY_KEY_PEPPER": pepper,
            "PENSTOCK_GATEWAY_LEDGER_DIR": str(self._folder("ledger")),
            "PENSTOCK_GATEWAY_LEDGER_URI": stores.ledger_uri,
            "PENSTOCK_GATEWAY_LEDGER_KEY": stores.ledger_key,
            "PENSTOCK_GATEWAY_PAYLOAD_URI": stores.payload_uri,
        }
        return self._module(f"gateway-{index}", "gateway", settings, grace_seconds=25.0)

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._state_dir / "logs" / f"{name}.log"

    def _module(
        self, name: str, module: str, settings: dict[str, str], grace_seconds: float
    ) -> Program:
        return self._program(name, [sys.executable, "-m", module], settings, grace_seconds)

    def _program(
        self, name: str, command: list[str], settings: dict[str, str], grace_seconds: float
    ) -> Program:
        return Program(
            name=name,
            command=command,
            environment=self.environment | settings | self._settings,
            log=self.log(name),
            grace_seconds=grace_seconds,
            working_directory=SOURCE_TREE,
        )

    def _repository(self, index: int) -> Path:
        return self._folder(f"repository-{index}")

    def _folder(self, name: str) -> Path:
        folder = self._state_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
