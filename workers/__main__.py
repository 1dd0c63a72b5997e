"""``python -m workers``: the serving agent beside one tritonserver."""

from __future__ import annotations

import asyncio
import logging
import signal

from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry, ReplicaRegistry
from penstock.service.settings import read_settings
from penstock.service.telemetry import configure_logging, start_metrics
from workers.agent import ServingAgent
from workers.package_cache import PackageCache
from workers.repository import Placement, Repository, count_gpus
from workers.settings import AgentSettings
from workers.triton_client import TritonClient
from workers.version_life import Workshop

log = logging.getLogger("workers")


def placement(settings: AgentSettings) -> Placement:
    """Where instances run on this machine."""
    gpus = {"cpu": 0, "gpu": max(1, count_gpus()), "auto": count_gpus()}[settings.instance_kind]
    return Placement(gpus, settings.threads, settings.precision)


async def serve(settings: AgentSettings) -> None:
    """Runs the agent until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    control = connect(settings.control_redis_url)
    soft = connect(settings.soft_redis_url)
    workshop = Workshop(
        settings=settings,
        packages=PackageCache(settings.package_cache),
        repository=Repository(settings.model_repository, placement(settings)),
        triton=TritonClient(settings.triton_endpoint),
        replicas=ReplicaRegistry(soft),
        load_limit=asyncio.Semaphore(settings.concurrent_loads),
        triton_up=asyncio.Event(),
    )
    agent = ServingAgent(settings, ModelRegistry(control), workshop)
    meter, metrics = start_metrics("penstock-worker", settings)
    agent.measure(meter)
    log.info("started", extra={"replica": settings.replica_id})
    try:
        await agent.run(stopping)
    finally:
        await workshop.triton.close()
        await control.aclose()
        await soft.aclose()
        metrics.shutdown()
    log.info("stopped")


def main() -> None:
    """Reads the settings and serves."""
    settings = read_settings(AgentSettings)
    configure_logging(settings.log_level)
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
