"""``python -m workers.triton``: keeps one tritonserver running until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time

from penstock.service.settings import read_settings
from penstock.service.telemetry import configure_logging
from workers.settings import TritonSettings
from workers.triton.installation import Installation, TritonMissing, locate
from workers.triton.server import TritonProcess

log = logging.getLogger("workers.triton")

STABLE_SECONDS = 60.0
"""A server that ran this long before it died is restarted without a long pause."""
_PARENT_POLL_SECONDS = 0.5


async def supervise(
    installation: Installation, settings: TritonSettings, stopping: asyncio.Event
) -> None:
    """Runs servers, one after the other, until told to stop."""
    pause = settings.first_restart_seconds
    while not stopping.is_set():
        started = time.monotonic()
        server = await TritonProcess.start(installation, settings, os.environ)
        log.info("started", extra={"pid": server.pid, "listen": settings.listen})
        try:
            code = await _ended(server, stopping)
            if code is None:
                await server.stop(settings.shutdown_seconds)
                return
        finally:
            await server.destroy()
        if time.monotonic() - started >= STABLE_SECONDS:
            pause = settings.first_restart_seconds
        log.error("tritonserver died", extra={"exit_code": code, "restart_in_seconds": pause})
        await _pause(stopping, pause)
        pause = min(2 * pause, settings.longest_restart_seconds)


async def _ended(server: TritonProcess, stopping: asyncio.Event) -> int | None:
    """The server's exit code, or None when it is to be stopped."""
    death = asyncio.create_task(server.wait())
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({death, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if death.done() and not stopping.is_set():
        return death.result()
    death.cancel()
    return None


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


async def _watch_parent(parent: int, stopping: asyncio.Event) -> None:
    """Stops when an orphan. Polled, because PR_SET_PDEATHSIG follows the parent's thread."""
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_POLL_SECONDS)
    log.warning("the process that started this one has gone")
    stopping.set()


async def run(settings: TritonSettings, parent: int) -> None:
    """Supervises until SIGTERM, SIGINT, or the end of the parent."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watch = asyncio.create_task(_watch_parent(parent, stopping))
    if not settings.die_with_parent:
        watch.cancel()
    settings.model_repository.mkdir(parents=True, exist_ok=True)
    await supervise(locate(settings.home), settings, stopping)
    watch.cancel()
    log.info("stopped")


def main() -> None:
    """Reads the settings and runs."""
    parent = os.getppid()
    settings = read_settings(TritonSettings)
    configure_logging(settings.log_level)
    try:
        asyncio.run(run(settings, parent))
    except (TritonMissing, OSError) as error:
        log.critical("tritonserver cannot be started", extra={"cause": str(error)})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
