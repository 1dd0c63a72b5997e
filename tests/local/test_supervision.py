"""Programs are restarted when they end, and end when they are told to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.service.local.processes import ProcessId
from penstock.service.local.state import ProcessRecord
from penstock.service.local.supervision import Program, Supervisor

IDLE = "import time; time.sleep(600)"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
SAYS_WHEN_IT_ENDS = """
import signal, sys, time
def end(*_):
    open({order!r}, "a").write({name!r} + " ")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
HAS_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
"""


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Recorded:
    """What the supervisor last reported."""

    def __init__(self) -> None:
        self.records: list[ProcessRecord] = []

    def __call__(self, records: list[ProcessRecord]) -> None:
        self.records = records


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Program]:
    def make(name: str, code: str, grace_seconds: float = 5.0) -> Program:
        command = [sys.executable, "-c", code]
        return Program(name, command, dict(os.environ), tmp_path / f"{name}.log", grace_seconds)

    return make


def test_a_program_that_is_killed_comes_back(program: Callable[..., Program]) -> None:
    reported = Recorded()
    supervisor = Supervisor(reported)
    (child,) = supervisor.start(program("idle", IDLE))
    try:
        first = child.pid
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: child.restarts == 1 and child.running())
        assert child.pid != first
        assert eventually(lambda: [record.pid for record in reported.records] == [child.pid])
    finally:
        supervisor.stop(lambda _: None)


def test_a_program_that_keeps_ending_is_restarted_ever_more_slowly(
    program: Callable[..., Program],
) -> None:
    supervisor = Supervisor(lambda _: None)
    (child,) = supervisor.start(program("brief", "print('again', flush=True)"))

    def runs() -> int:
        return child.program.log.read_text().count("again")

    try:
        assert eventually(lambda: runs() == 2)
        second = time.monotonic()
        assert eventually(lambda: runs() == 3)
        assert time.monotonic() - second >= 0.9
    finally:
        supervisor.stop(lambda _: None)


def test_programs_end_in_the_reverse_order_of_their_start(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    order = tmp_path / "order"
    supervisor = Supervisor(lambda _: None)
    for name in ("first", "second", "third"):
        code = SAYS_WHEN_IT_ENDS.format(order=str(order), name=name)
        supervisor.start(program(name, code))
    logs = [child.program.log for child in supervisor.children()]
    assert eventually(lambda: all("up" in log.read_text() for log in logs))
    supervisor.stop(lambda _: None)
    assert order.read_text().split() == ["third", "second", "first"]


def test_a_program_that_ignores_its_end_is_killed_with_its_children(
    program: Callable[..., Program],
) -> None:
    supervisor = Supervisor(lambda _: None)
    (child,) = supervisor.start(program("deaf", HAS_A_CHILD + DEAF, grace_seconds=0.2))
    assert eventually(lambda: "deaf" in child.program.log.read_text())
    grandchild = ProcessId.of(int(child.program.log.read_text().split()[0]))
    assert grandchild is not None
    assert grandchild.alive()
    told: list[str] = []
    supervisor.stop(told.append)
    assert told[-1] == "deaf did not end within 0.2 s and was killed"
    assert not child.running()
    assert eventually(lambda: not grandchild.alive())
