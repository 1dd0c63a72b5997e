"""What the ledger's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from gateway.ledger.store import LedgerStore
from penstock.service.local.redis_server import RedisServer
from penstock.service.redis import connect


@pytest.fixture
async def control(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """An empty control Redis."""
    client = connect(redis_server.url(8))
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def store(control: Redis) -> LedgerStore:
    """The ledger's part of it."""
    return LedgerStore(control)
