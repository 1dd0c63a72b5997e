"""Processes that die under load: what callers see, and how long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import grpc

from penstock.client import AsyncClient
from penstock.errors import PenstockError
from penstock.service.local.cluster import LocalCluster
from penstock.service.local.processes import ProcessId, members
from tests.e2e.test_families import HONEST

CALLERS = 8
LONGEST_ANSWER_SECONDS = 6.0


class Load:
    """Callers that call without pause until they are stopped; remembers how each call ended."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._stopping = False
        self.answered = 0
        self.last_answer_at = 0.0
        self.errors: list[PenstockError] = []
        self.longest_seconds = 0.0

    async def run(self) -> None:
        """Calls until ``stop``."""
        await asyncio.gather(*(self._call() for _ in range(CALLERS)))

    def stop(self) -> None:
        """Lets each caller finish its call."""
        self._stopping = True

    async def _call(self) -> None:
        while not self._stopping:
            started = time.monotonic()
            try:
                await self._client.predict("fraud", HONEST, timeout=LONGEST_ANSWER_SECONDS)
                self.answered += 1
                self.last_answer_at = time.monotonic()
            except PenstockError as error:
                self.errors.append(error)
                await asyncio.sleep(error.retry_after_seconds or 0.1)
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        await asyncio.sleep(0.05)


def tritonserver(cluster: LocalCluster) -> ProcessId:
    """The server process below its launcher."""
    found = [
        process
        for process in members(cluster.state.cluster_id)
        if os.readlink(f"/proc/{process.pid}/exe").endswith("/tritonserver")
    ]
    assert len(found) == 1
    return found[0]


async def test_a_killed_tritonserver_costs_retryable_errors_only_and_comes_back(
    small_cluster: LocalCluster,
) -> None:
    async with AsyncClient(small_cluster.endpoint, small_cluster.api_key, tls=False) as client:
        load = Load(client)
        running = asyncio.create_task(load.run())
        await until(lambda: load.answered > 50, 10, "load")
        killed_at = time.monotonic()
        tritonserver(small_cluster).end(signal.SIGKILL)
        await until(
            lambda: bool(load.errors) or load.last_answer_at > killed_at + 5, 10, "an error"
        )
        since = time.monotonic()
        await until(lambda: load.last_answer_at > since + 1, 40, "an answer again")
        load.stop()
        await running
    assert {error.code for error in load.errors} <= {grpc.StatusCode.UNAVAILABLE}, Counter(
        repr(error) for error in load.errors
    )
    assert all(error.retry_after_seconds is not None for error in load.errors)
    assert load.longest_seconds < LONGEST_ANSWER_SECONDS


async def test_ending_one_of_two_gateways_fails_no_call(small_cluster: LocalCluster) -> None:
    gateway = small_cluster.process("gateway-0")
    restarts = gateway.restarts
    clients = [
        AsyncClient(small_cluster.endpoint, small_cluster.api_key, tls=False) for _ in range(4)
    ]
    loads = [Load(client) for client in clients]
    running = [asyncio.create_task(load.run()) for load in loads]
    await until(lambda: all(load.answered > 20 for load in loads), 10, "load")
    gateway.signal(signal.SIGTERM)
    await until(lambda: gateway.restarts > restarts, 30, "the gateway's restart")
    ended_at = time.monotonic()
    await until(lambda: all(load.last_answer_at > ended_at + 1 for load in loads), 10, "traffic")
    for load in loads:
        load.stop()
    await asyncio.gather(*running)
    for client in clients:
        await client.close()
    assert [error for load in loads for error in load.errors] == []
