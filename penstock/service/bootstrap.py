"""The first key of a fresh cluster: without it nobody could ask the gateway for another."""

from __future__ import annotations

from redis.asyncio import Redis

from penstock.errors import AlreadyExists, TenantErased
from penstock.service import keys
from penstock.service.api_keys import KeyRecord, KeyStore
from penstock.service.redis import read
from penstock.service.tenants import TenantRecord, TenantStore

OPERATORS = "operators"
"""The tenant of those who run the cluster."""
HIGHEST_TIER = 1


async def bootstrap(
    control: Redis,
    pepper: bytes,
    *,
    tenant: str = OPERATORS,
    name: str = "first administrator",
    again: bool = False,
) -> tuple[KeyRecord, str]:
    """A key that may do everything, and its text; the tenant is made, or resumed, for it.

    Once a cluster, however many ask at the same time, unless ``again``. Raises AlreadyExists,
    InvalidArgument and TenantErased; RedisError leaves the cluster as it was or needs ``again``.
    """
    tenants, store = TenantStore(control), KeyStore(control, pepper)
    if not again and await read(control, keys.BOOTSTRAP) is not None:
        raise AlreadyExists("the cluster has had its first key")
    record = await tenants.ensure(TenantRecord(id=tenant, highest_tier=HIGHEST_TIER))
    if record.state == "erased":
        raise TenantErased(f"tenant {tenant!r} was erased: name another")
    if not await control.set(keys.BOOTSTRAP, tenant, nx=True) and not again:
        raise AlreadyExists("the cluster has had its first key")
    if record.state == "suspended":
        await tenants.resume(tenant)
    return await store.create(tenant, name, ["*"], highest_tier=HIGHEST_TIER)
