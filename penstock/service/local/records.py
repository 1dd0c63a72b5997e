"""What a person or a test changes in a cluster's Redis: models, and keys to call them with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.api_keys import KeyStore, parse
from penstock.service.bootstrap import OPERATORS, bootstrap
from penstock.service.packages import package_digest, verify_package
from penstock.service.redis import connect
from penstock.service.registry import ModelRecord, ModelRegistry
from penstock.service.tenants import TenantRecord, TenantStore

T = TypeVar("T")

LOCAL_TENANT = "local"
"""Whose keys are made here; it may use the highest tier."""


class Records:
    """Plain calls over the services' own async stores; usable with or without a running loop."""

    def __init__(self, control_redis_url: str, soft_redis_url: str, pepper: str) -> None:
        self._control_url = control_redis_url
        self._soft_url = soft_redis_url
        self._pepper = pepper.encode()

    def with_keys(self, use: Callable[[KeyStore], Awaitable[T]]) -> T:
        """Runs ``use`` on the API keys. Raises RedisError and what ``use`` raises."""
        return _with_redis(self._control_url, lambda redis: use(KeyStore(redis, self._pepper)))

    def with_models(self, use: Callable[[ModelRegistry], Awaitable[T]]) -> T:
        """Runs ``use`` on the wanted models. Raises RedisError and what ``use`` raises."""
        return _with_redis(self._control_url, lambda redis: use(ModelRegistry(redis)))

    def register(self, package: Path) -> ModelRecord:
        """Makes a package on this machine's disk wanted; the newest version takes all traffic.

        Raises PackageInvalid, VersionExists.
        """
        spec = verify_package(package, None)
        uri, digest = package.resolve().as_uri(), package_digest(package)
        return self.with_models(
            lambda registry: registry.register(uri, digest, spec, take_traffic=True)
        )

    def forget_models(self, folder: Path) -> None:
        """Forgets the models whose packages are below the folder, where they may be built anew."""
        prefix = folder.resolve().as_uri() + "/"

        async def forget(redis: Redis) -> None:
            for name, record in (await ModelRegistry(redis).models()).items():
                if any(v.package_uri.startswith(prefix) for v in record.versions.values()):
                    await _answer(redis.hdel(keys.MODELS, name))

        _with_redis(self._control_url, forget)

    def create_key(self, name: str, scopes: Sequence[str] = ("*",), **limits: Any) -> str:
        """The text of a new API key of tenant ``local``; ``limits`` as KeyStore.create takes."""

        async def create(redis: Redis) -> str:
            await TenantStore(redis).ensure(TenantRecord(id=LOCAL_TENANT, highest_tier=1))
            store = KeyStore(redis, self._pepper)
            return (await store.create(LOCAL_TENANT, name, scopes, **limits))[1]

        return _with_redis(self._control_url, create)

    def first_key(
        self, tenant: str = OPERATORS, name: str = "first administrator", *, again: bool = False
    ) -> str:
        """The text of a key that may do everything; once a cluster, unless ``again``.

        Raises AlreadyExists, InvalidArgument, TenantErased.
        """
        return _with_redis(
            self._control_url,
            lambda redis: bootstrap(redis, self._pepper, tenant=tenant, name=name, again=again),
        )[1]

    def is_usable(self, key: str) -> bool:
        """Whether the key is one of the cluster's and good."""
        parsed = parse(key)
        if parsed is None:
            return False

        async def usable(store: KeyStore) -> bool:
            record = await store.find(parsed.id)
            return (
                record is not None and record.state() == "active" and store.matches(record, parsed)
            )

        return self.with_keys(usable)

    def forget_replicas(self) -> None:
        """Clears the soft Redis: replicas of an earlier run are gone."""
        _with_redis(self._soft_url, lambda redis: redis.flushdb())


def _with_redis(url: str, use: Callable[[Redis], Awaitable[T]]) -> T:
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
