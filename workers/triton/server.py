"""One run of tritonserver: the server and its models' processes as one group that ends together.

A model's process (a stub) ignores SIGTERM and outlives a killed server, holding shared memory. So
the group is always killed as a whole, its shared memory is removed by its own prefix, and a guard
does both if this process is killed itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

from workers.settings import TritonSettings
from workers.triton.installation import Installation

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where shm_open puts its objects on Linux
_GUARD = 'read -r group || exit; read -r _; kill -s KILL -- "-$group"; rm -f -- "$1"*'
"""Told the group's number, it waits for the end of its input: for its parent's end."""


def command(installation: Installation, settings: TritonSettings, region_prefix: str) -> list[str]:
    """The command line. No HTTP, no response cache (its key knows no tenant), no auto-completion
    (it starts every model's process twice)."""
    host, _, port = settings.listen.rpartition(":")
    line = [
        str(installation.binary),
        f"--model-repository={settings.model_repository}",
        f"--backend-directory={installation.backends}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--allow-http=false",
        f"--grpc-address={host}",
        f"--grpc-port={port}",
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        f"--backend-config=python,stub-timeout-seconds={settings.stub_timeout_seconds}",
        f"--exit-timeout-secs={settings.shutdown_seconds}",
    ]
    if not settings.metrics_listen:
        return [*line, "--allow-metrics=false"]
    host, _, port = settings.metrics_listen.rpartition(":")
    return [*line, "--allow-metrics=true", f"--metrics-address={host}", f"--metrics-port={port}"]


class TritonProcess:
    """A started tritonserver with everything it started."""

    def __init__(
        self,
        server: asyncio.subprocess.Process,
        guard: asyncio.subprocess.Process,
        region_prefix: str,
    ) -> None:
        self._server = server
        self._guard = guard
        self._region_prefix = region_prefix
        self._destroyed = False

    @classmethod
    async def start(
        cls, installation: Installation, settings: TritonSettings, inherited: Mapping[str, str]
    ) -> TritonProcess:
        """Starts the server in a process group of its own; raises OSError if it cannot be run."""
        region_prefix = f"penstock_{os.getpid()}_{secrets.token_hex(4)}_"
        regions = str(_SHARED_MEMORY / region_prefix)
        guard = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _GUARD, "triton-guard", regions),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        if guard.stdin is None:
            raise OSError("the guard has no input")
        try:
            server = await asyncio.create_subprocess_exec(
                *command(installation, settings, region_prefix),
                env=installation.environment(inherited, settings.stub_threads),
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,
            )
        except OSError:
            guard.stdin.close()
            raise
        guard.stdin.write(f"{server.pid}\n".encode())
        await guard.stdin.drain()
        return cls(server, guard, region_prefix)

    @property
    def pid(self) -> int:
        """The server's process id, which is also its group's."""
        return self._server.pid

    async def wait(self) -> int:
        """Waits until the server itself has ended; minus the signal's number if one ended it."""
        return await self._server.wait()

    async def stop(self, grace_seconds: float) -> None:
        """Lets the server finish what it executes, then ends everything."""
        with contextlib.suppress(ProcessLookupError):
            self._server.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait(), grace_seconds)
        await self.destroy()

    async def destroy(self) -> None:
        """Kills whatever is left of the group and removes its shared memory."""
        if self._destroyed:
            return
        self._destroyed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        await self._server.wait()
        with contextlib.suppress(ProcessLookupError):
            self._guard.kill()
        await self._guard.wait()
        _remove_regions(self._region_prefix)


def _remove_regions(prefix: str) -> None:
    for region in _SHARED_MEMORY.glob(prefix + "*"):
        region.unlink(missing_ok=True)
