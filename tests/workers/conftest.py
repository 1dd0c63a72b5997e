"""One replica for all tests of this folder: they leave it serving whatever they kill."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer
from tests.workers.station import Station


@pytest.fixture(scope="package")
def control_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this folder's own, which a test may stop and start again."""
    server = RedisServer(tmp_path_factory.mktemp("control"), free_port())
    child = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    assert server.wait()
    yield server
    child.terminate()
    child.wait()


@pytest.fixture(scope="package")
async def station(
    control_redis: RedisServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Station]:
    """A running replica."""
    station = Station(tmp_path_factory.mktemp("station"), control_redis, redis_server.url(8))
    yield station
    await station.stop()
