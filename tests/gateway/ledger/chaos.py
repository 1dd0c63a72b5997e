"""Calls at a steady rate through real gateways while gateways and Redis are killed.

``python -m tests.gateway.ledger.chaos`` (``make chaos-ledger``) runs it at full length and prints
what came out as JSON; a test runs a shorter one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
from redis.exceptions import RedisError

from gateway.ledger.frames import RECORD, read_frame
from gateway.ledger.shipment import GATEWAY_LOST
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from penstock.internal.ledger.v1.events_pb2 import CallEvent, WriteAheadRecord
from penstock.service.api_keys import KeyStore
from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer
from penstock.service.packages import triton_name
from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry, ReplicaRecord, ReplicaRegistry, ServedModel
from penstock.service.tenants import TenantRecord, TenantStore
from tests.gateway.ledger.metered import ECHO, PEPPER, PRICES, STORIES, double, rows
from tests.gateway.ledger.seen import billed, shipped, totals
from tests.gateway.stage import StoryReplica

GATEWAYS = 3
STREAM_SHARE = 10
"""One call in so many is a stream."""
WORDS = 12
WORD_SECONDS = 0.05
"""So that streams are open when a gateway is killed."""
CALL_SECONDS = 5.0
RECOVERY_SECONDS = 60.0
STORY = pb.GenerateRequest(model="storyteller", prompt="Once")


@dataclass
class Outcome:
    """What callers saw, by request id where they learned it."""

    answered: dict[str, int] = field(default_factory=dict)
    """Calls answered as a whole, with the units that they say they used."""
    begun: dict[str, int] = field(default_factory=dict)
    """Streams that broke off, with the words that came."""
    refused: int = 0
    """By a gateway that said so."""
    unknown: int = 0
    """Broken off without a word of the gateway's."""
    codes: Counter[str] = field(default_factory=Counter)


class Cluster:
    """Redis, a scripted replica in this process, and gateways that come back when killed."""

    def __init__(self, folder: Path, gateways: int = GATEWAYS) -> None:
        self.ledger_dir = folder / "ledger"
        self._folder = folder
        self._redis = RedisServer(folder / "redis", free_port())
        self.control: Any = connect(self._redis.url())
        self._replica = StoryReplica()
        self._replica.script = double
        self._replica.word_seconds = WORD_SECONDS
        self._replica.words = [f"w{n} " for n in range(WORDS)]
        self.ports = [free_port() for _ in range(gateways)]
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._redis_child: subprocess.Popen[bytes] | None = None
        self._log = (folder / "gateways.log").open("wb")
        self.api_key = ""

    async def start(self) -> None:
        """Returns when every gateway answers."""
        (self._folder / "prices.yaml").write_text(PRICES)
        self.start_redis()
        await self._replica.server.start()
        registry = ModelRegistry(self.control)
        for spec in (ECHO, STORIES):
            await registry.register(f"file:///{spec.name}", f"sha256:{spec.name}", spec)
        await self.announce()
        await TenantStore(self.control).ensure(TenantRecord(id="acme", highest_tier=1))
        _, self.api_key = await KeyStore(self.control, PEPPER.encode()).create("acme", "t", ["*"])
        for index in range(len(self.ports)):
            self.start_gateway(index)

    async def announce(self) -> None:
        """Says that the replica is there."""
        served = tuple(
            ServedModel(
                name=spec.name,
                version=spec.version,
                triton_name=triton_name(spec.name, spec.version),
                instances=8,
                max_batch=spec.max_batch,
            )
            for spec in (ECHO, STORIES)
        )
        record = ReplicaRecord(
            id="r1", endpoint=self._replica.endpoint, region="local", models=served
        )
        await ReplicaRegistry(self.control).announce(record)

    def start_redis(self) -> None:
        """On the port and with the files that it had before."""
        self._redis_child = subprocess.Popen(self._redis.command(), stdout=subprocess.DEVNULL)
        assert self._redis.wait()

    def kill_redis(self) -> None:
        """SIGKILL."""
        assert self._redis_child is not None
        self._redis_child.kill()
        self._redis_child.wait()

    def start_gateway(self, index: int) -> None:
        """Another process on the same port."""
        settings = {
            "LISTEN": f"127.0.0.1:{self.ports[index]}",
            "CONTROL_REDIS_URL": self._redis.url(),
            "SOFT_REDIS_URL": self._redis.url(),
            "KEY_PEPPER": PEPPER,
            "LEDGER_DIR": str(self.ledger_dir),
            "PRICES_FILE": str(self._folder / "prices.yaml"),
            "DRAIN_SECONDS": "2",
        }
        environment = {f"PENSTOCK_GATEWAY_{name}": value for name, value in settings.items()}
        self._children[index] = subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            env=os.environ | environment,
            stdout=self._log,
            stderr=self._log,
        )

    def pid(self, index: int) -> int:
        """Of a gateway."""
        return self._children[index].pid

    def kill_gateway(self, index: int) -> None:
        """SIGKILL; ``keep_running`` starts another."""
        self._children[index].send_signal(signal.SIGKILL)
        self._children[index].wait()

    async def keep_running(self) -> None:
        """Announces the replica, and starts gateways that have ended."""
        while True:
            with contextlib.suppress(RedisError):
                await self.announce()
            for index, child in self._children.items():
                if child.poll() is not None:
                    self.start_gateway(index)
            await asyncio.sleep(1.0)

    async def stop(self) -> None:
        """Ends everything."""
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            child.wait()
        await self._replica.server.stop(None)
        await self.control.aclose()
        self.kill_redis()
        self._log.close()


class Load:
    """Callers."""

    def __init__(self, cluster: Cluster) -> None:
        self.outcome = Outcome()
        self.sent = 0
        self.metadata = (("authorization", f"Bearer {cluster.api_key}"),)
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.enable_retries", 0)]
        self.channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
            for port in cluster.ports
        ]
        self.stubs: list[Any] = [InferenceServiceStub(channel) for channel in self.channels]

    async def ready(self) -> None:
        """Waits until every gateway answers."""
        async with asyncio.timeout(30):
            for stub in self.stubs:
                while True:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        answer = await stub.Predict(rows(1), metadata=self.metadata, timeout=2)
                        self.outcome.answered[answer.metadata.request_id] = 1
                        break
                    await asyncio.sleep(0.1)

    async def run(self, rate: float, seconds: float) -> None:
        """Sends at the rate, whatever becomes of the calls; returns when the last has ended."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            while (passed := time.monotonic() - began) < seconds:
                for number in range(self.sent, int(passed * rate)):
                    self.sent = number + 1
                    call = self._stream if number % STREAM_SHARE == 0 else self._unary
                    calls.create_task(call(self.stubs[number % len(self.stubs)]))
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self.channels:
            await channel.close()

    async def _unary(self, stub: Any) -> None:
        try:
            answer = await stub.Predict(rows(1), metadata=self.metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._failed(error)
        else:
            self.outcome.answered[answer.metadata.request_id] = 1

    async def _stream(self, stub: Any) -> None:
        request_id, words = "", 0
        call = stub.Generate(STORY, metadata=self.metadata, timeout=CALL_SECONDS)
        try:
            initial = await call.initial_metadata()
            request_id = str(dict(initial).get("x-request-id", ""))
            async for message in call:
                words += bool(message.delta)
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            if words:
                self.outcome.begun[request_id] = words
        else:
            self.outcome.answered[request_id] = words

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        said = dict(error.trailing_metadata() or ())
        self.outcome.codes[error.code().name] += 1
        if "grpc-status-details-bin" in said:
            self.outcome.refused += 1
        else:
            self.outcome.unknown += 1


@dataclass
class Report:
    """What a run has shown."""

    seconds: float
    sent: int
    answered: int
    broken_streams: int
    refused: int
    unknown: int
    codes: dict[str, int]
    billed: int
    lost_streams: int
    events: int
    sources: int
    recovery_seconds: float


@asynccontextmanager
async def running(folder: Path, gateways: int = GATEWAYS) -> AsyncIterator[tuple[Cluster, Load]]:
    """A cluster and its callers."""
    cluster = Cluster(folder, gateways)
    try:
        await cluster.start()
        load = Load(cluster)
        keeper = asyncio.create_task(cluster.keep_running())
        try:
            await load.ready()
            yield cluster, load
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await load.close()
    finally:
        await cluster.stop()


async def run(folder: Path, rate: float, seconds: float) -> Report:
    """The whole proof; raises AssertionError where it fails."""
    async with running(folder) as (cluster, load):
        async with asyncio.TaskGroup() as together:
            together.create_task(load.run(rate, seconds))
            together.create_task(_kill(cluster, seconds))
        began = time.monotonic()
        events = await _settled(cluster, began + RECOVERY_SECONDS)
        recovery = time.monotonic() - began
        found = [event for some in events.values() for event in some]
        _check(load.outcome, found)
        sums = billed(found)
        outcome = load.outcome
        return Report(
            seconds=seconds,
            sent=load.sent,
            answered=len(outcome.answered),
            broken_streams=len(outcome.begun),
            refused=outcome.refused,
            unknown=outcome.unknown,
            codes=dict(outcome.codes),
            billed=sums.calls,
            lost_streams=sum(event.reason == GATEWAY_LOST for event in found),
            events=len(found),
            sources=len(events),
            recovery_seconds=round(recovery, 2),
        )


async def _kill(cluster: Cluster, seconds: float) -> None:
    """A gateway twice and Redis twice."""
    began = time.monotonic()

    async def until(share: float) -> None:
        await asyncio.sleep(max(0.0, began + share * seconds - time.monotonic()))

    await until(0.2)
    cluster.kill_gateway(0)
    await until(0.35)
    cluster.kill_redis()
    await until(0.45)
    await asyncio.to_thread(cluster.start_redis)
    await until(0.6)
    cluster.kill_gateway(1)
    cluster.kill_redis()
    await until(0.7)
    await asyncio.to_thread(cluster.start_redis)


async def _settled(cluster: Cluster, deadline: float) -> dict[str, list[CallEvent]]:
    """Waits until journals, outbox and roll-ups say the same; the events by source."""
    while True:
        with contextlib.suppress(RedisError):
            found = await shipped(cluster.control)
            events = [event for some in found.values() for event in some]
            written = await asyncio.to_thread(journals, cluster.ledger_dir)
            same = {event.id for event in events} == written
            if same and await totals(cluster.control) == billed(events):
                return found
        assert time.monotonic() < deadline, "journals, outbox and roll-ups do not become equal"
        await asyncio.sleep(0.25)


def journals(ledger_dir: Path) -> set[str]:
    """The ids of all calls that journals know, open streams of dead gateways included."""
    found: set[str] = set()
    for path in ledger_dir.glob("*/*.journal"):
        data, offset = path.read_bytes(), 0
        while (one := read_frame(data, offset)) is not None:
            offset += one.size
            if one.kind == RECORD:
                record = WriteAheadRecord.FromString(one.payload)
                found |= {event.id for event in (record.ended, record.opened) if event.id}
    return found


def _check(outcome: Outcome, events: list[CallEvent]) -> None:
    """Answers seen <= billed <= answers seen + indeterminate, for each call and in sum."""
    bills = {
        event.request_id: sum(u.output_units or u.input_units for u in event.usage)
        for event in events
    }
    for request_id, units in outcome.answered.items():
        assert bills.get(request_id) == units, (request_id, bills.get(request_id), units)
    for request_id, words in outcome.begun.items():
        assert words <= bills.get(request_id, 0) <= WORDS
    paid = sum(units > 0 for units in bills.values())
    seen = len(outcome.answered) + len(outcome.begun)
    assert len(outcome.answered) <= paid <= seen + outcome.unknown, (paid, seen, outcome)


def main() -> None:
    """Runs it at full length."""
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(run(Path(folder), 500.0, 30.0))
    print(json.dumps(asdict(report), indent=2))


if __name__ == "__main__":
    main()
