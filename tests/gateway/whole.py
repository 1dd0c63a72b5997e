"""A whole gateway in this process, as an operator with a first key meets it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import grpc
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway.server import Gateway
from gateway.settings import GatewaySettings
from penstock.client.failures import error_of
from penstock.errors import PenstockError
from penstock.service.api_keys import KeyStore
from penstock.service.redis import connect
from penstock.service.tenants import TenantRecord, TenantStore

PEPPER = "a pepper of the tests"
LEDGER_KEY = "a ledger key of the tests"
Metadata = tuple[tuple[str, str], ...]


@dataclass
class Whole:
    """The gateway's address, the stores behind it, and a key that may do everything."""

    address: str
    channel: grpc.aio.Channel
    redis: Redis
    keys: KeyStore
    tenants: TenantStore
    admin: Metadata
    admin_key_id: str

    async def acting(self, *scopes: str, **fields: Any) -> dict[str, Any]:
        """Arguments of a call made with a new key."""
        return {"metadata": await self.with_key(*scopes, **fields)}

    async def with_key(self, *scopes: str, tenant: str = "operators", **fields: Any) -> Metadata:
        """Metadata of a new key."""
        _, text = await self.keys.create(tenant, "of a test", scopes, **fields)
        return bearer(text)


@asynccontextmanager
async def whole_gateway(redis_url: str) -> AsyncIterator[Whole]:
    """Serves on a free port with an empty database; models that are registered later are seen."""
    redis = connect(redis_url)
    await redis.flushdb()
    folder = Path(mkdtemp())
    settings = GatewaySettings(
        listen="127.0.0.1:0",
        control_redis_url=redis_url,
        soft_redis_url=redis_url,
        key_pepper=SecretStr(PEPPER),
        drain_seconds=0,
        ledger_dir=str(folder / "journals"),
        ledger_uri=(folder / "segments").as_uri(),
        ledger_key=SecretStr(LEDGER_KEY),
    )
    keys, tenants = KeyStore(redis, PEPPER.encode()), TenantStore(redis)
    await tenants.create(TenantRecord(id="operators", highest_tier=1))
    record, text = await keys.create("operators", "first", ["*"])
    gateway = Gateway(settings)
    address = await gateway.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Whole(address, channel, redis, keys, tenants, bearer(text), record.id)
    finally:
        await gateway.stop()
        await redis.aclose()
        shutil.rmtree(folder)


def bearer(key: str) -> Metadata:
    """Metadata that presents the key."""
    return (("authorization", f"Bearer {key}"),)


async def refusal(call: Awaitable[object]) -> PenstockError:
    """The error with which the call is refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as failure:
        return error_of(failure)
    raise AssertionError(f"answered {answer}")


def fields_of(error: PenstockError) -> list[str]:
    """What the refusal complains about."""
    assert error.reason == "FIELD_INVALID", error
    return [violation.field for violation in error.violations]
