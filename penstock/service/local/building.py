"""The demo packages: built in the background while the servers start, given out one by one."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from penstock.service.local.state import SOURCE_TREE
from penstock.service.packages import MANIFEST_FILE


class BuildFailed(Exception):
    """A demo package could not be built; the message ends with what the builder said."""


class PackageBuild:
    """Runs ``python -m workers.demo_models``, which says a line a package: ``<name>: <how>``."""

    def __init__(
        self,
        artifacts: Path,
        models: Sequence[str],
        environment: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        self._artifacts = artifacts
        self._report = report
        self._said: list[str] = []
        self._unread: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "workers.demo_models", "--out", str(artifacts), *models],
            env=dict(environment),
            cwd=SOURCE_TREE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._listen, name="build-packages", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        """Whether ``finished`` gives the last of them."""
        return not self._thread.is_alive()

    def finished(self) -> list[Path]:
        """Packages that may be registered and were not given before. Raises BuildFailed."""
        done = self.done()
        lines = [self._unread.get() for _ in range(self._unread.qsize())]
        for line in lines:
            self._said.append(line)
            self._report(line)
        if done and self._child.returncode != 0:
            raise BuildFailed("the demo models were not built:\n" + "\n".join(self._said[-20:]))
        named = [self._artifacts / line.partition(":")[0] for line in lines]
        return [package for package in named if (package / MANIFEST_FILE).is_file()]

    def stop(self) -> None:
        """Ends the builder, and those that it started, if they still run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGTERM)
        self._thread.join()

    def _listen(self) -> None:
        with self._child:
            for line in self._child.stdout or ():
                self._unread.put(line.rstrip())
