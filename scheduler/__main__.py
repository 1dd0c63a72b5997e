"""``python -m scheduler``: one scheduler process; several may run at once."""

from __future__ import annotations

import asyncio
import logging
import signal

from penstock.errors import PenstockError
from penstock.service.settings import read_settings
from penstock.service.telemetry import configure_logging
from scheduler.server import Scheduler
from scheduler.settings import SchedulerSettings

log = logging.getLogger("scheduler")


async def serve(settings: SchedulerSettings) -> None:
    """Works until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    scheduler = Scheduler(settings)
    address = await scheduler.start()
    log.info("serving", extra={"address": address, "region": settings.region})
    await stopping.wait()
    log.info("draining", extra={"seconds": settings.drain_seconds})
    await scheduler.stop()
    log.info("stopped")


def main() -> None:
    """Reads the settings and works."""
    settings = read_settings(SchedulerSettings)
    configure_logging(settings.log_level)
    try:
        asyncio.run(serve(settings))
    except PenstockError as error:
        log.critical("the ledger's store cannot be used", extra={"cause": error.message})
        raise SystemExit(1) from None
    except (OSError, RuntimeError) as error:
        log.critical(f"cannot serve on {settings.listen}", extra={"cause": error})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
