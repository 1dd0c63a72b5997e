"""What a local cluster writes into its own Redis: models, and keys to call them with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from penstock.errors import VersionExists
from penstock.service import keys
from penstock.service.api_keys import KeyStore, parse
from penstock.service.packages import package_digest, read_spec
from penstock.service.redis import connect
from penstock.service.registry import ModelRecord, ModelRegistry

T = TypeVar("T")

LOCAL_TENANT = "local"


class Records:
    """Plain calls over the services' own async stores; usable with or without a running loop."""

    def __init__(self, control_redis_url: str, soft_redis_url: str, pepper: str) -> None:
        self._control_url = control_redis_url
        self._soft_url = soft_redis_url
        self._pepper = pepper.encode()

    def forget_replicas(self) -> None:
        """Clears the soft Redis: replicas of an earlier run are gone."""
        self._with_redis(self._soft_url, lambda redis: redis.flushdb())

    def register(self, package: Path) -> ModelRecord:
        """Makes a package on this machine's disk wanted, in place of another of its version.

        Raises PackageInvalid.
        """
        spec, digest, uri = read_spec(package), package_digest(package), package.resolve().as_uri()

        async def put(redis: Redis) -> ModelRecord:
            registry = ModelRegistry(redis)
            try:
                return await registry.register(uri, digest, spec, take_traffic=True)
            except VersionExists:
                # Elsewhere a version never changes; here its recipe did, and it was built again.
                await _answer(redis.hdel(keys.MODELS, spec.name))
                return await registry.register(uri, digest, spec, take_traffic=True)

        return self._with_redis(self._control_url, put)

    def create_key(self, name: str, scopes: Sequence[str] = ("*",), **limits: Any) -> str:
        """The text of a new API key of tenant ``local``; ``limits`` as KeyStore.create takes."""

        async def create(redis: Redis) -> str:
            store = KeyStore(redis, self._pepper)
            _, text = await store.create(LOCAL_TENANT, name, scopes, **limits)
            return text

        return self._with_redis(self._control_url, create)

    def is_usable(self, key: str) -> bool:
        """Whether the key's id is known and not revoked."""
        parsed = parse(key)

        if parsed is None:
            return False

        async def usable(redis: Redis) -> bool:
            record = await KeyStore(redis, self._pepper).find(parsed.id)
            return record is not None and record.revoked_at is None

        return self._with_redis(self._control_url, usable)

    def _with_redis(self, url: str, use: Callable[[Redis], Awaitable[T]]) -> T:
        async def run() -> T:
            redis = connect(url)
            try:
                return await use(redis)
            finally:
                await redis.aclose()

        return _wait_for(run())


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Runs it in a thread of its own, for the caller's thread may have a loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _answer(result: Awaitable[Any] | Any) -> Any:
    """redis-py types its commands as both plain and awaitable."""
    return await result
