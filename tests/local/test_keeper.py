"""A supervisor that is killed leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from penstock.service.local.processes import CLUSTER_VARIABLE, ProcessId, members
from penstock.service.local.state import SOURCE_TREE, read_state
from tests.local.test_supervision import eventually


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    cluster_id = f"test-{os.getpid()}"
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "tests.local.doomed_supervisor", str(tmp_path), cluster_id],
        cwd=SOURCE_TREE,
    )
    # Two programs and the one that left its parent's group.
    assert eventually(lambda: len(members(cluster_id)) == 3)
    assert eventually(lambda: read_state(tmp_path) is not None)
    supervisor.kill()
    supervisor.wait()
    assert eventually(lambda: not members(cluster_id))
    assert eventually(lambda: read_state(tmp_path) is None)


def test_members_are_found_by_their_mark_alone() -> None:
    cluster_id = f"marked-{os.getpid()}"
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    marked = subprocess.Popen(command, env=os.environ | {CLUSTER_VARIABLE: cluster_id})
    other = subprocess.Popen(command, env=os.environ | {CLUSTER_VARIABLE: cluster_id + "x"})
    try:
        assert eventually(lambda: [found.pid for found in members(cluster_id)] == [marked.pid])
    finally:
        for child in (marked, other):
            child.kill()
            child.wait()


def test_a_number_that_was_given_to_another_process_is_not_signalled() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        stale = ProcessId(bystander.pid, started_ticks=1)
        assert not stale.alive()
        stale.end(signal.SIGKILL)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
