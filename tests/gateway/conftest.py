"""What the gateway's tests share."""

from __future__ import annotations

import pytest

from penstock.service.local.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """A database that only the gateway's tests use; each of them may empty it."""
    return redis_server.url(7)
