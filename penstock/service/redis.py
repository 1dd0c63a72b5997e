"""How every service connects to Redis: no hidden re-sends, short timeouts, bytes in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

T = TypeVar("T")


def connect(url: str, *, timeout_seconds: float = 2.0, max_connections: int = 64) -> Redis:
    """A client that connects at its first command. Close it with ``aclose()``.

    A command is sent once: a client that re-sends after a lost answer can run a write twice, so
    whoever needs a retry repeats the operation under the same operation id. Failures raise
    redis.exceptions.RedisError (ConnectionError, TimeoutError and others). When all connections
    are busy a command waits for one, no longer than for its answer.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        timeout=timeout_seconds,
        decode_responses=False,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        health_check_interval=0,
    )
    return Redis.from_pool(pool)


async def transact(redis: Redis, attempt: Callable[[Pipeline], Awaitable[T]], *watched: str) -> T:
    """Runs ``attempt`` until nobody else has changed a watched key meanwhile; all or nothing.

    ``attempt`` reads through the pipeline, calls ``begin_writes`` and then queues its writes.
    For rare changes whose rules are Python: a Lua script would have to repeat them.
    """
    result: Any = await redis.transaction(cast(Any, attempt), *watched, value_from_callable=True)
    return cast(T, result)


def begin_writes(pipe: Pipeline) -> None:
    """From here on the transaction's commands are queued, and run together at its end."""
    pipe.multi()  # type: ignore[no-untyped-call]


async def read(pipe: Pipeline | Redis, key: str) -> bytes | None:
    """The value of a key. Inside a transaction the key must be watched."""
    return await cast(Awaitable[bytes | None], pipe.get(key))
