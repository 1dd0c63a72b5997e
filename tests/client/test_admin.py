"""The SDK's tenants and keys, against a whole gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock import AsyncClient, Client
from penstock.api.admin.v1 import tenants_pb2
from penstock.errors import EtagMismatch, KeyRevoked, TenantExists, Unauthenticated
from penstock.service.local.redis_server import RedisServer
from tests.gateway.whole import whole_gateway


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[AsyncClient]:
    async with whole_gateway(redis_server.url(6)) as gateway:
        key = gateway.admin[0][1].removeprefix("Bearer ")
        async with AsyncClient(f"http://{gateway.address}", key) as client:
            yield client


async def test_a_tenant_lives_and_ends(client: AsyncClient) -> None:
    made = await client.tenants.create(
        "acme", weight=5, limits={"requests_per_minute": 60}, labels={"a": "b"}
    )
    assert (made.weight, made.limits.requests_per_minute) == (5, 60)
    with pytest.raises(TenantExists):
        await client.tenants.create(tenants_pb2.Tenant(id="acme"))
    changed = await client.tenants.update("acme", mask=["labels", "weight"], weight=9)
    assert (changed.weight, dict(changed.labels)) == (9, {})
    with pytest.raises(EtagMismatch):
        await client.tenants.update(made, weight=1)
    assert (await client.tenants.suspend("acme")).state == tenants_pb2.TENANT_STATE_SUSPENDED
    active = await client.tenants.resume("acme")
    assert [tenant.id for tenant in await client.tenants.list()] == ["acme", "operators"]
    await client.tenants.erase("acme", active.etag)
    assert (await client.tenants.get("acme")).state == tenants_pb2.TENANT_STATE_ERASED
    erased = await client.tenants.list([tenants_pb2.TENANT_STATE_ERASED])
    assert [tenant.id for tenant in erased] == ["acme"]


async def test_a_key_lives_and_ends(client: AsyncClient) -> None:
    made = await client.keys.create("operators", ["admin:read"], display_name="auditor")
    endpoint = f"http://{client.connection.endpoint}"
    async with AsyncClient(endpoint, made.api_key) as auditor:
        assert (await auditor.keys.get(made.key.id)).display_name == "auditor"
    rotated = await client.keys.rotate(made.key.id, overlap=0)
    changed = await client.keys.update(made.key.id, scopes=["models:read"])
    assert list(changed.scopes) == ["models:read"]
    assert len(await client.keys.list("operators")) == 2
    await client.keys.revoke(made.key.id)
    with pytest.raises(KeyRevoked):
        await client.keys.rotate(made.key.id)
    async with AsyncClient(endpoint, rotated.api_key) as late:
        with pytest.raises(Unauthenticated):
            await late.models.list()


async def test_the_waiting_client_does_the_same(client: AsyncClient) -> None:
    def work() -> list[str]:
        with Client(f"http://{client.connection.endpoint}", client.connection.api_key) as waiting:
            waiting.tenants.create("bolt", idempotency_key="once")
            waiting.keys.create("bolt", ["files:*"])
            return [key.tenant_id for key in waiting.keys.list("bolt")]

    assert await asyncio.to_thread(work) == ["bolt"]
