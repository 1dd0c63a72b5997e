"""Programs that are kept running: started, restarted with a growing pause, drained in reverse."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from penstock.service.local.processes import ProcessId
from penstock.service.local.state import ProcessRecord

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
STEADY_SECONDS = 30.0
"""A program that ran for this long starts again with the first pause."""


@dataclass(frozen=True)
class Program:
    """What to run and how to end it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    grace_seconds: float = 10.0
    """Between SIGTERM and SIGKILL."""
    working_directory: Path = field(default_factory=Path.cwd)


class Supervised:
    """One program that runs until it is stopped, whatever ends it in between."""

    def __init__(self, program: Program, changed: Callable[[], None]) -> None:
        self.program = program
        self.restarts = 0
        self._changed = changed
        self._stopping = threading.Event()
        self._child = self._spawn()
        self._process = ProcessId.of(self._child.pid)
        self._thread = threading.Thread(
            target=self._keep_running, name=f"supervise-{program.name}", daemon=True
        )
        self._thread.start()

    @property
    def pid(self) -> int:
        """The number of the process that runs now, or ran last."""
        return self._child.pid

    def running(self) -> bool:
        """Whether a process is there at this moment."""
        return self._child.poll() is None

    def record(self) -> ProcessRecord:
        """The process for the state file."""
        return ProcessRecord(
            name=self.program.name,
            pid=self.pid,
            started_ticks=self._process.started_ticks if self._process else 0,
            grace_seconds=self.program.grace_seconds,
            restarts=self.restarts,
        )

    def signal(self, number: signal.Signals) -> None:
        """Signals the process alone, not its group; it is started again if that ends it."""
        self._child.send_signal(number)

    def stop(self) -> bool:
        """Drains it within its grace, else kills its whole group; whether it ended by itself."""
        self._stopping.set()
        self._child.terminate()
        drained = True
        try:
            self._child.wait(self.program.grace_seconds)
        except subprocess.TimeoutExpired:
            drained = False
            self._kill_group()
        self._thread.join()
        return drained

    def _keep_running(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            self._child.wait()
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            if self._stopping.is_set():
                return
            self._kill_group()
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self.restarts += 1
            self._child = self._spawn()
            self._process = ProcessId.of(self._child.pid)
            if self._stopping.is_set():
                # stop() signalled the child before this one.
                self._child.terminate()
            self._changed()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        with self.program.log.open("ab") as log:
            return subprocess.Popen(
                self.program.command,
                env=dict(self.program.environment),
                cwd=self.program.working_directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C in the terminal reaches the supervisor alone.
                start_new_session=True,
            )

    def _kill_group(self) -> None:
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
        self._child.wait()


class Supervisor:
    """Programs in the order of their start; they end in reverse, those of one stage together."""

    def __init__(self, changed: Callable[[list[ProcessRecord]], None]) -> None:
        self._changed = changed
        self._stages: list[list[Supervised]] = []
        self._lock = threading.RLock()

    def start(self, *programs: Program) -> list[Supervised]:
        """Starts one stage."""
        with self._lock:
            stage: list[Supervised] = []
            self._stages.append(stage)
            for program in programs:
                stage.append(Supervised(program, self._report))
        self._report()
        return stage

    def __getitem__(self, name: str) -> Supervised:
        return next(child for child in self.children() if child.program.name == name)

    def children(self) -> list[Supervised]:
        """All of them, in the order of their start."""
        with self._lock:
            return [child for stage in self._stages for child in stage]

    def stop(self, report: Callable[[str], None]) -> None:
        """Drains the last stage first."""
        for stage in reversed(self._stages):
            report("draining " + ", ".join(child.program.name for child in stage))
            with ThreadPoolExecutor(len(stage)) as pool:
                drained = list(pool.map(Supervised.stop, stage))
            for child, in_time in zip(stage, drained, strict=True):
                if not in_time:
                    name, grace = child.program.name, child.program.grace_seconds
                    report(f"{name} did not end within {grace:g} s and was killed")

    def _report(self) -> None:
        with self._lock:
            self._changed([child.record() for child in self.children()])
