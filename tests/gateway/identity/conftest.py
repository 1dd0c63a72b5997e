"""What the identity tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from gateway.identity import trust
from gateway.identity.issuers import Issuers
from penstock.service.redis import connect
from tests.gateway.identity.front import Front, Records, fronted, records_of
from tests.gateway.identity.issuing import IssuerServer


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
async def records(redis: Redis) -> Records:
    """With the tenants acme and other."""
    records = records_of(redis)
    await records.tenant("acme")
    await records.tenant("other")
    return records


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are looked up again after a tenth of the usual time."""
    monkeypatch.setattr(trust, "FRESH_SECONDS", trust.FRESH_SECONDS / 10)
    monkeypatch.setattr(trust, "TRUST_SECONDS", trust.TRUST_SECONDS / 10)


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    server = IssuerServer()
    yield server
    server.close()


@pytest.fixture
async def front(redis: Redis, records: Records, issuer: IssuerServer) -> AsyncIterator[Front]:
    """Takes API keys, signatures, and the issuer's tokens for the tenant acme."""
    async with fronted(redis, issuers=Issuers(issuers=(issuer.described(),))) as one:
        yield one
