"""A supervisor for a test to kill: ``python -m tests.local.doomed_supervisor <dir> <cluster>``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from penstock.service.local.keeper import Keeper
from penstock.service.local.processes import ProcessId
from penstock.service.local.programs import Programs
from penstock.service.local.state import ClusterState, ProcessRecord, write_state
from penstock.service.local.supervision import Program, Supervisor

LEAVES_A_STRAY = """
import subprocess, sys, time
sleep = "import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)
time.sleep(600)
"""
IGNORES_ITS_END = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""


def main() -> None:
    """Supervises two programs that are hard to end, with a keeper, until it is killed."""
    folder, cluster_id = Path(sys.argv[1]), sys.argv[2]
    me = ProcessId.of(os.getpid())
    assert me is not None
    owner = ProcessRecord(name="me", pid=me.pid, started_ticks=me.started_ticks, grace_seconds=5)
    programs = Programs(folder, cluster_id, {})
    keeper = Keeper(folder, programs.environment, programs.log("keeper"))

    def changed(records: list[ProcessRecord]) -> None:
        state = ClusterState(cluster_id=cluster_id, owner=owner, processes=tuple(records))
        write_state(folder, state)

    supervisor = Supervisor(changed)
    for name, code in {"stray": LEAVES_A_STRAY, "deaf": IGNORES_ITS_END}.items():
        command = [sys.executable, "-c", code]
        supervisor.start(Program(name, command, programs.environment, programs.log(name), 0.5))
    time.sleep(600)
    keeper.dismiss()


if __name__ == "__main__":
    main()
