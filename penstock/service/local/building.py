"""The demo packages: built in the background while the servers start, one by one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from penstock.service.local.state import SOURCE_TREE, locked
from penstock.service.packages import MANIFEST_FILE


class BuildFailed(Exception):
    """A demo package could not be built; the message ends with what the builder said."""


class PackageBuild:
    """Runs the builder; ``finished`` gives each package once, as soon as it may be registered."""

    def __init__(
        self,
        artifacts: Path,
        models: Sequence[str],
        environment: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        self._artifacts = artifacts
        self._models = frozenset(models)
        self._environment = environment
        self._report = report
        self._known = self._packages()
        self._given: set[Path] = set()
        self._said: list[str] = []
        self._status: int | None = None
        self._child: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="build-packages", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        """Whether the builder has ended, so that ``finished`` gives the last of them."""
        return not self._thread.is_alive()

    def finished(self) -> list[Path]:
        """Packages that were not given before. Raises BuildFailed."""
        done = self.done()
        if done and self._status != 0:
            raise BuildFailed("the demo models were not built:\n" + "\n".join(self._said[-20:]))
        # A package that was there before may be of an old recipe until the builder has seen it.
        fresh = [
            package
            for package, sealed_at in self._packages().items()
            if package not in self._given and (done or self._known.get(package) != sealed_at)
        ]
        self._given.update(fresh)
        return fresh

    def stop(self) -> None:
        """Ends the builder if it still runs."""
        self._stopping.set()
        if self._child is not None:
            self._child.terminate()
        self._thread.join()

    def _packages(self) -> dict[Path, int]:
        """Package -> when its manifest, which is written last, was written."""
        return {
            manifest.parent: manifest.stat().st_mtime_ns
            for manifest in self._artifacts.glob(f"*/*/{MANIFEST_FILE}")
            if not manifest.parent.parent.name.startswith(".")
            and not manifest.parent.name.startswith(".")
            and (not self._models or manifest.parent.parent.name in self._models)
        }

    def _run(self) -> None:
        # Clusters that share the folder build in turn; the second one finds everything there.
        with locked(self._artifacts / ".lock", wait=True):
            if self._stopping.is_set():
                return
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "workers.demo_models"),
                    *("--out", str(self._artifacts), *sorted(self._models)),
                ],
                env=dict(self._environment),
                cwd=SOURCE_TREE,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            for line in self._child.stdout or ():
                self._said.append(line.rstrip())
                self._report(line.rstrip())
            self._status = self._child.wait()
