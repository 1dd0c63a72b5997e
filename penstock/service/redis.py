"""How every service connects to Redis: no hidden re-sends, short timeouts, bytes in and out."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def connect(url: str, *, timeout_seconds: float = 2.0, max_connections: int = 64) -> Redis:
    """A client that connects at its first command. Close it with ``aclose()``.

    A command is sent once: a client that re-sends after a lost answer can run a write twice, so
    whoever needs a retry repeats the operation under the same operation id. Failures raise
    redis.exceptions.RedisError (ConnectionError, TimeoutError and others).
    """
    return Redis.from_url(
        url,
        decode_responses=False,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        health_check_interval=0,
    )
