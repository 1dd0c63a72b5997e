"""Ends a cluster whose supervisor was killed: a process that waits for the end of its own input.

``python -m penstock.service.local.keeper <state dir>`` reads a pipe that only the supervisor
writes to, so the kernel ends its input even when the supervisor had no chance to say goodbye.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from penstock.service.local.processes import (
    CLUSTER_VARIABLE,
    end_all,
    members,
    wait_for_end,
)
from penstock.service.local.state import SOURCE_TREE, ClusterState, read_state, remove_state

OWNER_SECONDS = 10.0
"""How long a supervisor whose pipe has ended may take to be gone."""


class Keeper:
    """The keeper of this process, from the supervisor's side."""

    def __init__(self, state_dir: Path, environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        # Not marked as a member: it must outlive them.
        unmarked = {k: v for k, v in environment.items() if k != CLUSTER_VARIABLE}
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "penstock.service.local.keeper", str(state_dir)],
                env=unmarked,
                cwd=SOURCE_TREE,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def dismiss(self) -> None:
        """Lets it end; with the state file gone it has nothing to do."""
        self._child.communicate()


def end_cluster(state: ClusterState) -> None:
    """Drains the processes that a dead supervisor left, last started first, then kills the rest."""
    for record in reversed(state.processes):
        end_all([record.process], record.grace_seconds)
    end_all(members(state.cluster_id), 0.0)


def main() -> None:
    """Waits for the supervisor's end; a supervisor that stopped in order left no state."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    state_dir = Path(sys.argv[1])
    while os.read(sys.stdin.fileno(), 1):
        pass
    state = read_state(state_dir)
    # A killed process closes its pipes a moment before it counts as ended.
    if state is None or not wait_for_end([state.owner.process], OWNER_SECONDS):
        return
    print("the supervisor is gone: ending what it started", flush=True)
    end_cluster(state)
    remove_state(state_dir)


if __name__ == "__main__":
    main()
