"""An empty ledger on a real Redis and a real store, and a Redis that belongs to one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from penstock.service.local.redis_server import RedisServer
from penstock.service.redis import connect
from tests.service.ledger.writing import Ledger, ledger_in


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A database that only the scheduler's tests use."""
    return redis_server.url(10)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """An empty database."""
    client = connect(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def ledger(tmp_path: Path, redis: Redis) -> Ledger:
    return ledger_in(tmp_path / "ledger", redis)
