"""What a running local cluster writes down, so that others can find it, show it and end it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.service.local.processes import ProcessId

STATE_FILE = "cluster.json"
LOCK_FILE = "lock"
SOURCE_TREE = Path(__file__).resolve().parents[3]
DEFAULT_STATE_DIR = SOURCE_TREE / ".penstock"


class ProcessRecord(BaseModel):
    """One process of the cluster."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    started_ticks: int
    grace_seconds: float
    restarts: int = 0

    @property
    def process(self) -> ProcessId:
        """The process, safe against a number that was given to another one."""
        return ProcessId(self.pid, self.started_ticks)


class ClusterState(BaseModel):
    """A cluster as its state file describes it; secrets are inside, so the file is private."""

    model_config = ConfigDict(frozen=True)

    cluster_id: str
    owner: ProcessRecord
    """The process that supervises; ending it drains the cluster."""
    processes: tuple[ProcessRecord, ...] = ()
    """In the order of their start."""
    endpoint: str = ""
    """host:port of the gateway."""
    control_redis_url: str = ""
    soft_redis_url: str = ""
    key_pepper: str = ""
    api_key: str = ""
    """The development key; empty until there is one."""


def write_state(state_dir: Path, state: ClusterState) -> None:
    """Replaces the state file at once."""
    write_private(state_dir / STATE_FILE, state.model_dump_json(indent=2))


def read_state(state_dir: Path) -> ClusterState | None:
    """The state of a cluster that runs, or that was killed; None where there is none."""
    try:
        return ClusterState.model_validate_json((state_dir / STATE_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def remove_state(state_dir: Path) -> None:
    """Forgets the cluster."""
    (state_dir / STATE_FILE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only this user can read, at once."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds a file lock that ends with this process. Raises BlockingIOError unless it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
