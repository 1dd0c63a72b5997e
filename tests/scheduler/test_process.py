"""``python -m scheduler`` as an operator sees it: probed, sealing, ending, refusing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.ledger.heads import read_heads
from penstock.service.ledger.verification import verify
from tests.service.ledger.writing import KEY, Ledger, event, ship


def environment(ledger: Ledger, redis_url: str, **settings: str) -> dict[str, str]:
    own = {
        "LISTEN": "127.0.0.1:0",
        "CONTROL_REDIS_URL": redis_url,
        "LEDGER_URI": ledger.folder.as_uri(),
        "LEDGER_KEY": KEY.decode(),
        "SEAL_SECONDS": "0.05",
    } | settings
    return os.environ | {f"PENSTOCK_SCHEDULER_{name}": value for name, value in own.items()}


@asynccontextmanager
async def scheduler(ledger: Ledger, redis_url: str) -> AsyncIterator[tuple[Any, str]]:
    """The process and the address it says it serves on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scheduler"),
        env=environment(ledger, redis_url),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            told: dict[str, str] = {"event": ""}
            while told["event"] != "serving":
                told = json.loads(await process.stderr.readline())
        yield process, told["address"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_sealed(redis: Redis) -> None:
    async with asyncio.timeout(20):
        while await redis.xlen(keys.LEDGER_OUTBOX):
            await asyncio.sleep(0.02)


async def test_it_answers_health_checks_seals_and_ends_on_sigterm(
    ledger: Ledger, redis: Redis, redis_url: str
) -> None:
    async with scheduler(ledger, redis_url) as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await ship(redis, "s1", 1, [event(n) for n in range(5)])
        await until_sealed(redis)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_schedulers_that_are_killed_lose_and_repeat_nothing(
    ledger: Ledger, redis: Redis, redis_url: str
) -> None:
    sequence = 0
    for _ in range(2):
        async with scheduler(ledger, redis_url) as (one, _), scheduler(ledger, redis_url):
            for _ in range(10):
                events = [event(sequence + n) for n in range(20)]
                sequence = await ship(redis, "s1", sequence + 1, events)
            one.kill()
    async with scheduler(ledger, redis_url):
        await until_sealed(redis)
    heads = await read_heads(redis, KEY)
    for chain in (ledger.audit, ledger.usage):
        found = await verify(chain, heads.of(chain.ledger), {})
        assert found.faults == []
        assert found.events == sequence == 400


def test_a_bad_setting_stops_it_with_a_line_that_names_it(ledger: Ledger) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scheduler"],
        env=environment(ledger, "redis://127.0.0.1:1/0", LEDGER_KEY="short"),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert "PENSTOCK_SCHEDULER_LEDGER_KEY" in ended.stderr
    assert "short" not in ended.stderr


def test_an_address_of_no_store_stops_it(ledger: Ledger, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scheduler"],
        env=environment(ledger, "redis://127.0.0.1:1/0", LEDGER_URI=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
