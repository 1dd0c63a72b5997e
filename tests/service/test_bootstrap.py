"""The first key of a cluster: made once, unless somebody insists."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from penstock.errors import AlreadyExists, TenantErased
from penstock.service.api_keys import KeyStore
from penstock.service.bootstrap import OPERATORS, bootstrap
from penstock.service.credentials import parse
from penstock.service.tenants import TenantStore

PEPPER = b"a pepper of some length"


async def test_the_first_key_may_do_everything(redis: Redis) -> None:
    record, text = await bootstrap(redis, PEPPER)
    assert (record.tenant, record.scopes, record.highest_tier) == (OPERATORS, ("*",), 1)
    key, store = parse(text), KeyStore(redis, PEPPER)
    assert key is not None
    found = await store.get(key.id)
    assert store.matches(found, key)
    assert (await TenantStore(redis).get(OPERATORS)).highest_tier == 1


async def test_there_is_one_first_key_however_many_ask(redis: Redis) -> None:
    made = await asyncio.gather(
        *(bootstrap(redis, PEPPER) for _ in range(10)), return_exceptions=True
    )
    assert len([one for one in made if isinstance(one, AlreadyExists)]) == 9
    assert len((await KeyStore(redis, PEPPER).list())[0]) == 1


async def test_a_lost_first_key_can_be_made_again(redis: Redis) -> None:
    first, _ = await bootstrap(redis, PEPPER)
    await TenantStore(redis).suspend(OPERATORS)
    with pytest.raises(AlreadyExists):
        await bootstrap(redis, PEPPER)
    second, _ = await bootstrap(redis, PEPPER, again=True)
    assert second.id != first.id
    assert (await TenantStore(redis).get(OPERATORS)).state == "active"


async def test_an_erased_tenant_gets_no_first_key(redis: Redis) -> None:
    await bootstrap(redis, PEPPER)
    tenant = await TenantStore(redis).get(OPERATORS)
    await TenantStore(redis).erase(OPERATORS, etag=tenant.etag)
    with pytest.raises(TenantErased):
        await bootstrap(redis, PEPPER, again=True)
    record, _ = await bootstrap(redis, PEPPER, tenant="keepers", again=True)
    assert record.tenant == "keepers"
