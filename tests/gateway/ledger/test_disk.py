"""A gateway whose disk is full refuses what it could not bill, and comes back by itself."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from typing import Any

import grpc

from penstock.api.models.v1 import models_pb2
from penstock.api.models.v1.models_pb2_grpc import ModelsServiceStub
from penstock.client.failures import error_of
from tests.gateway.ledger.chaos import running
from tests.gateway.ledger.metered import rows
from tests.gateway.ledger.seen import billed, shipped, totals


def limit_files(process: int, most_bytes: int) -> None:
    _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (most_bytes, hard))


async def reason(call: Any) -> str:
    """Why it was refused; empty if it was answered."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error_of(error).reason
    return ""


async def test_a_full_disk_refuses_billable_calls_until_it_has_room(tmp_path: Path) -> None:
    async with running(tmp_path, gateways=1) as (cluster, load):
        stub, metadata = load.stubs[0], load.metadata
        limit_files(cluster.pid(0), 64 * 1024)
        answered = 1
        while not (why := await reason(stub.Predict(rows(1), metadata=metadata, timeout=5))):
            answered += 1
        assert 50 < answered < 400
        assert why == "DEPENDENCY_UNAVAILABLE"
        models: Any = ModelsServiceStub(load.channels[0])
        reading = models.ListModels(models_pb2.ListModelsRequest(), metadata=metadata, timeout=5)
        assert await reason(reading) == ""
        limit_files(cluster.pid(0), resource.RLIM_INFINITY)
        async with asyncio.timeout(10):
            while why := await reason(stub.Predict(rows(1), metadata=metadata, timeout=5)):
                assert why == "DEPENDENCY_UNAVAILABLE"
                await asyncio.sleep(0.05)
            while (sums := await totals(cluster.control)).calls < answered + 1:
                await asyncio.sleep(0.05)
        assert sums.calls == answered + 1
        (events,) = (await shipped(cluster.control)).values()
        assert billed(events) == sums
        # What was asked while the disk was full is written down, too, and costs nothing.
        assert any(event.reason == "DEPENDENCY_UNAVAILABLE" for event in events)
