"""Every knob of what runs beside a GPU: the serving agent's and the Triton launcher's."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.service.settings import ServiceSettings


class AgentSettings(ServiceSettings):
    """The serving agent's. Read from PENSTOCK_WORKER_* variables."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_WORKER_")

    triton_endpoint: str = "127.0.0.1:8001"
    """host:port where the agent reaches its tritonserver."""
    advertise: str = ""
    """host:port that gateways are given; empty gives them ``triton_endpoint``."""
    replica_id: str = Field(default_factory=socket.gethostname, min_length=1, max_length=128)
    """This replica's name; no two living replicas share one."""
    model_repository: Path
    """Directory that tritonserver reads models from; the agent owns what is in it."""
    package_cache: Path
    """Directory of verified packages, one a digest, read-only once written."""
    instance_kind: Literal["auto", "cpu", "gpu"] = "auto"
    """Where instances run; ``auto`` takes the GPUs if the machine shows any."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads inside one operator of one instance."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the models that this package format runs itself."""
    concurrent_loads: int = Field(default=2, ge=1, le=64)
    """Models loaded side by side; starting one keeps about one core busy."""
    load_timeout_seconds: float = Field(default=300.0, gt=0)
    """A version that takes longer to load has failed."""
    poll_seconds: float = Field(default=1.0, gt=0)
    """How often the registry is read."""
    heartbeat_seconds: float = Field(default=2.0, gt=0, le=3.0)
    """How often the replica is announced; announcements live 6 s."""
    probe_seconds: float = Field(default=5.0, gt=0)
    """How often each loaded model is asked for a tiny answer."""
    probe_timeout_seconds: float = Field(default=20.0, gt=0)
    """A model that takes longer for a tiny answer, queue included, is loaded again."""
    first_retry_seconds: float = Field(default=2.0, gt=0)
    """Pause before a failed version is tried again; doubles each time."""
    longest_retry_seconds: float = Field(default=60.0, gt=0)
    """The longest such pause."""
    retire_delay_seconds: float = Field(default=2.0, ge=0)
    """How long a retired version stays loaded after it was withdrawn, so that every gateway knows
    and what it had sent is answered."""
    drain_seconds: float = Field(default=20.0, ge=0)
    """How long calls in flight may finish after SIGTERM."""


class TritonSettings(BaseSettings):
    """The Triton launcher's. Read from PENSTOCK_TRITON_* variables."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_TRITON_")

    home: str = ""
    """Where Triton is installed; empty looks in <venv>/triton, then in /opt/tritonserver."""
    listen: str = Field(default="127.0.0.1:8001", pattern=r":[1-9][0-9]{0,4}$")
    """host:port of the gRPC server."""
    metrics_listen: str = Field(default="", pattern=r"^$|:[1-9][0-9]{0,4}$")
    """host:port of Triton's own Prometheus metrics; empty serves none."""
    model_repository: Path
    """Directory that models are loaded from; made if missing."""
    stub_timeout_seconds: int = Field(default=120, ge=1)
    """How long a model's process may take to start."""
    stub_threads: int = Field(default=1, ge=1)
    """OMP_NUM_THREADS of the models' processes."""
    shutdown_seconds: int = Field(default=10, ge=0)
    """How long Triton may take to finish what it executes after SIGTERM; then it is killed."""
    first_restart_seconds: float = Field(default=0.5, gt=0)
    """Pause before a crashed Triton is started again; doubles with each crash in a row."""
    longest_restart_seconds: float = Field(default=10.0, gt=0)
    """The longest such pause."""
    die_with_parent: bool = True
    """Whether to end when the process that started this one has gone."""
    log_level: str = "INFO"
    """Python's name of the lowest level that is logged."""
