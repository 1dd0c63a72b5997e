"""``python -m gateway``: one gateway process, or several that share the port."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys

import uvloop
from redis.exceptions import RedisError

from gateway.identity.issuers import IssuersInvalid, read_issuers
from gateway.processes import run_processes
from gateway.server import Gateway
from gateway.settings import GatewaySettings
from penstock.errors import PenstockError
from penstock.service.prices import PricesInvalid
from penstock.service.settings import read_settings
from penstock.service.telemetry import configure_logging

log = logging.getLogger("gateway")


async def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    gateway = Gateway(settings)
    address = await gateway.start()
    log.info("serving", extra={"address": address, "region": settings.region})
    _spare_the_collector()
    _yield_to_the_loop()
    await stopping.wait()
    log.info("draining", extra={"seconds": settings.drain_seconds})
    await gateway.stop()
    log.info("stopped")


def _spare_the_collector() -> None:
    # Everything made so far lives as long as the process, and calls make few cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _yield_to_the_loop() -> None:
    # gRPC's own threads wake up for every event and push the loop's thread off its core: seven
    # switches a call, a third of its CPU time. Batch threads wait until the loop pauses, and find
    # several events then. Threads that they start inherit it.
    try:
        for thread in map(int, os.listdir("/proc/self/task")):
            if thread != os.getpid():
                os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        log.warning("gRPC's threads keep the usual scheduling", extra={"cause": error})


def main() -> None:
    """Reads the settings and serves."""
    settings = read_settings(GatewaySettings)
    configure_logging(settings.log_level)
    try:
        read_issuers(settings.issuers_file)
        if settings.processes > 1:
            raise SystemExit(run_processes(settings))
        uvloop.run(serve(settings))
    except (IssuersInvalid, PricesInvalid) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except RedisError as error:
        log.critical("Redis cannot be used", extra={"cause": error})
        raise SystemExit(1) from None
    except PenstockError as error:
        log.critical("a store cannot be used", extra={"cause": error.message})
        raise SystemExit(1) from None
    except (OSError, RuntimeError) as error:
        log.critical(f"cannot serve on {settings.listen}", extra={"cause": error})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
