"""The ledger of a whole cluster: what gateways ship is sealed, listed and verified."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from penstock import AsyncClient
from penstock.service.local.cluster import LocalCluster
from penstock.service.redis import connect
from tests.service.ledger.writing import event, ship


async def test_what_is_shipped_is_sealed_listed_and_verified(cluster: LocalCluster) -> None:
    control = connect(cluster.state.control_redis_url)
    await ship(control, "a source of the tests", 1, [event(n, tenant="audited") for n in range(3)])
    await control.aclose()
    async with AsyncClient(f"http://{cluster.endpoint}", cluster.api_key) as client:
        start = datetime.fromtimestamp(event(0).started_us / 1e6, UTC)
        async with asyncio.timeout(30):
            segments = {0}
            while 0 in segments:
                found = await client.audit.list(tenant_id="audited", start=start)
                segments = {one.segment for one in found}
                await asyncio.sleep(0.1)
        assert [one.request_id for one in found] == [f"request-audited-{n}" for n in (2, 1, 0)]
        for ledger in ("audit", "usage"):
            answer = await client.audit.verify(ledger)
            assert answer.intact, answer.faults
            assert answer.events >= 3
