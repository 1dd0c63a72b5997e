"""Processes as Linux knows them: who is alive, who belongs to a cluster, and how to end them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

CLUSTER_VARIABLE = "PENSTOCK_LOCAL_CLUSTER"
"""Environment variable that every process of a local cluster inherits, down to Triton's stubs."""

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started_ticks: int
    """Clock ticks from boot to its start, from /proc/<pid>/stat."""

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this number now; None if there is none."""
        stat = _stat(pid)
        return None if stat is None else cls(pid, int(stat[19]))

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and int(stat[19]) == self.started_ticks and stat[0] != "Z"

    def end(self, number: signal.Signals) -> None:
        """Signals it, if it is still the same process."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def members(cluster_id: str) -> list[ProcessId]:
    """Living processes of this user that were started by or below the cluster."""
    mark = f"{CLUSTER_VARIABLE}={cluster_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Most of /proc belongs to others or ends while it is read.
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                process = ProcessId.of(int(entry.name))
                if process is not None and process.alive():
                    found.append(process)
    return found


def end_all(processes: Collection[ProcessId], grace_seconds: float) -> None:
    """Asks all to end, and kills those that have not after the grace."""
    for process in processes:
        process.end(signal.SIGTERM)
    if wait_for_end(processes, grace_seconds):
        return
    for process in processes:
        process.end(signal.SIGKILL)
    wait_for_end(processes, 5.0)


def wait_for_end(processes: Collection[ProcessId], seconds: float) -> bool:
    """Whether all ended within the time."""
    return any(not _living(processes) for _ in _polls(seconds))


def _living(processes: Collection[ProcessId]) -> bool:
    return any(process.alive() for process in processes)


def _polls(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL_SECONDS)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third (state) on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the name, is in parentheses and may hold anything.
    return text.rpartition(")")[2].split()
