"""What limits cost: each step by itself, a real gateway with and without, and with a slow Redis.

Steps run in this process over a real Redis, which they hardly ever ask. The gateway runs tiny
tensors through Triton by h2load at 16 callers, on the first core; load and Triton on the second.
Rounds alternate, medians are quoted. ``make bench-limits``.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks import load, report
from gateway.authorisation import authorise
from gateway.calls import Call, Principal, Quota
from gateway.identity.identifier import Identifier
from gateway.ledger.events import EventWriter
from gateway.ledger.journal import Journal
from gateway.ledger.sources import Source
from gateway.limits.admission import Admission
from gateway.limits.bounds import upper_bound
from gateway.limits.tickets import UNLIMITED, Ticket
from gateway.tensors import Tensor
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.service import keys
from penstock.service.api_keys import KeyStore
from penstock.service.local.cluster import ClusterOptions, LocalCluster
from penstock.service.local.ports import free_port
from penstock.service.local.state import DEFAULT_STATE_DIR, ClusterState
from penstock.service.packages import ModelSpec, read_spec
from penstock.service.prices import PriceTable
from penstock.service.quotas import NO_LIMITS, Budget, Limits
from penstock.service.redis import connect
from penstock.service.tenants import TenantRecord, TenantStore

MODEL = "fraud"
METHOD = "/penstock.api.inference.v1.InferenceService/Predict"
ROUNDS, SECONDS, CALLERS = 5, 3, 16
SERVER_CORE, LOAD_CORE = 0, 1
STEP_ROUNDS, STEP_CALLS = 7, 2_000
PLENTY = 600_000
"""Units a minute: some times what passes here, and far from without end."""
SLOW_SECONDS = 0.25
WIDE = Limits(requests_per_minute=PLENTY, units_per_minute=PLENTY, concurrent_calls=10_000)
BUDGET = Budget(unit=metadata_pb2.USAGE_UNIT_ROW, amount=10**12, period=2)
USED = metadata_pb2.Usage(input_units=1, unit=metadata_pb2.USAGE_UNIT_ROW)


def main() -> None:
    """Measures, prints the tables, writes JSON, prints the JSON last."""
    with tempfile.TemporaryDirectory() as folder:
        options = ClusterOptions(state_dir=Path(folder), models=(MODEL,))
        with LocalCluster(options) as cluster:
            steps = asyncio.run(_steps(cluster.state))
            gateway = _gateway(cluster)
    figures = {"generator": load.generator(), "step_us": steps, "gateway": gateway}
    report.write("limits", figures)
    _print(figures)
    print(json.dumps(figures))


# Steps


async def _steps(state: ClusterState) -> dict[str, float]:
    control, soft = connect(state.control_redis_url), connect(state.soft_redis_url)
    admission = Admission(soft, control, secrets.token_hex(16), None)
    admission.start()
    store = KeyStore(control, state.key_pepper.encode())
    tenants = TenantStore(control)
    await tenants.ensure(TenantRecord(id="acme", highest_tier=1))
    _, text = await store.create("acme", "bench", ["*"])
    metadata = {"authorization": f"Bearer {text}"}
    identifier = Identifier(store, tenants)
    found: dict[str, list[float]] = {}
    spec = read_spec(DEFAULT_STATE_DIR / "artifacts" / MODEL)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Source.create(Path(folder)), secrets.token_bytes(32))
        writer = EventWriter(journal, PriceTable())
        for _ in range(STEP_ROUNDS):
            steps = _step_list(identifier, metadata, admission, spec)
            steps["write_down"] = lambda: _written_down(writer)
            for name, step in steps.items():
                found.setdefault(name, []).append(await _timed(step))
        await journal.close()
    await admission.stop()
    await asyncio.gather(control.aclose(), soft.aclose())
    return {name: median(rounds) for name, rounds in found.items()}


def _step_list(
    identifier: Identifier,
    metadata: Mapping[str, str | bytes],
    admission: Admission,
    spec: ModelSpec,
) -> dict[str, Callable[[], Awaitable[object]]]:
    nobody = Principal("acme", "free", frozenset({"*"}))
    two = _principal("two", Limits(requests_per_minute=PLENTY))
    six = _principal("six", WIDE)
    budgeted = _principal("budgeted", NO_LIMITS, BUDGET)
    tensor = Tensor("features", "FP32", (30,), bytes(120))

    async def authorised() -> None:
        authorise(six, "inference:invoke")

    async def bounded() -> None:
        upper_bound(spec, 1, [tensor])

    return {
        "identify": lambda: identifier.identify(METHOD, metadata, Stranger()),
        "authorise": authorised,
        "admit_0_limits": lambda: _through(admission, nobody),
        "admit_2_limits": lambda: _through(admission, two),
        "admit_6_limits": lambda: _through(admission, six),
        "admit_6_and_reserve_units": lambda: _through(admission, six, reserve=True),
        "admit_and_reserve_2_budgets": lambda: _through(admission, budgeted, reserve=True),
        "bound": bounded,
        "admit_6_and_headers": lambda: _through(admission, six, headers=True),
    }


async def _written_down(writer: EventWriter) -> None:
    """One event with its two digests, encoded, chained and written to the file."""
    who = Principal("acme", "free", frozenset({"*"}), pseudonym_key=bytes(32))
    entry = writer.entry(METHOD, "0" * 32, time.monotonic())
    entry.made_by(_call(UNLIMITED, who))
    entry.received(bytes(150))
    entry.answered(bytes(150))


class Stranger:
    """A peer without a certificate."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}


async def _through(
    admission: Admission, who: Principal, *, reserve: bool = False, headers: bool = False
) -> None:
    ticket = await admission.admit(who)
    call = _call(ticket, who)
    if reserve:
        await ticket.reserve(USED, call)
        ticket.narrow(USED, USED, call)
    if headers:
        ticket.headers()
    ticket.close(call)


async def _timed(step: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of one, at the speed of many in a row; the loop runs between batches."""
    spent = 0.0
    for _ in range(10):
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        for _ in range(STEP_CALLS // 10):
            await step()
        spent += time.perf_counter() - began
    return spent / STEP_CALLS * 1e6


def _principal(name: str, limits: Limits, *budgets: Budget) -> Principal:
    quotas = tuple(Quota(subject, limits, budgets) for subject in (f"key:{name}", f"tenant:{name}"))
    return Principal("acme", name, frozenset({"*"}), quotas=quotas)


def _call(ticket: Ticket, who: Principal) -> Call:
    call = Call("r", METHOD, who, 0.0, 0.0, ticket=ticket)
    call.usage = USED
    return call


# The gateway


def _gateway(cluster: LocalCluster) -> dict[str, Any]:
    limited = _limited_key(cluster.state, WIDE)
    budgeted = _limited_key(cluster.state, WIDE, BUDGET)
    port = urlsplit(cluster.state.soft_redis_url).port
    triton = [p.pid for p in psutil.Process(cluster.process("triton-0").pid).children(True)]
    _pin(triton, LOAD_CORE)
    with ExitStack() as stack:
        redis = stack.enter_context(_delayed(port or 0))
        address, metrics, pid = stack.enter_context(_own_gateway(cluster.state, redis))
        targets = {
            "unlimited": _target(address, cluster.api_key, pid),
            "limited": _target(address, limited, pid),
            "limited_and_budgeted": _target(address, budgeted, pid),
            "limited_slow_redis": _target(address, limited, pid),
        }
        rounds: dict[str, list[load.Figures]] = {name: [] for name in targets}
        for _ in range(ROUNDS):
            for name, target in targets.items():
                redis.delay(0.0)
                load.run(target, CALLERS, 1, LOAD_CORE)
                redis.delay(SLOW_SECONDS if name.endswith("slow_redis") else 0.0)
                before = load.ok_count(metrics, "Predict")
                figures = load.run(target, CALLERS, SECONDS, LOAD_CORE)
                answered = load.ok_count(metrics, "Predict") - before
                if answered < 0.999 * figures.requests:
                    raise RuntimeError(f"{name}: {answered} OK of {figures.requests}")
                rounds[name].append(figures)
    return {name: _medians(runs) for name, runs in rounds.items()}


class DelayedRedis:
    """benchmarks.delayed_redis as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())

    def delay(self, seconds: float) -> None:
        """From now on."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def _delayed(port: int) -> Iterator[DelayedRedis]:
    command = [sys.executable, "-m", "benchmarks.delayed_redis", str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield DelayedRedis(process)
        finally:
            process.terminate()


@contextmanager
def _own_gateway(state: ClusterState, redis: DelayedRedis) -> Iterator[tuple[str, str, int]]:
    """A gateway over the cluster's Redis, the soft one late: address, metrics, process."""
    metrics = f"127.0.0.1:{free_port()}"
    soft = urlsplit(state.soft_redis_url)
    password = soft.password or ""
    settings = {
        "LISTEN": "127.0.0.1:0",
        "CONTROL_REDIS_URL": state.control_redis_url,
        "SOFT_REDIS_URL": f"redis://:{password}@127.0.0.1:{redis.port}{soft.path}",
        "KEY_PEPPER": state.key_pepper,
        "METRICS_LISTEN": metrics,
    }
    environment = os.environ | {f"PENSTOCK_GATEWAY_{name}": v for name, v in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "gateway"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        told = json.loads(process.stderr.readline())
        _pin([process.pid], SERVER_CORE)
        try:
            yield told["address"], metrics, process.pid
        finally:
            process.kill()


def _limited_key(state: ClusterState, limits: Limits, *budgets: Budget) -> str:
    async def create() -> str:
        control = connect(state.control_redis_url)
        store = KeyStore(control, state.key_pepper.encode())
        await TenantStore(control).ensure(TenantRecord(id="bench", highest_tier=1))
        record, text = await store.create("bench", "bench", ["*"])
        record = record.model_copy(update={"limits": limits, "budgets": budgets})
        await control.set(keys.api_key(record.id), record.model_dump_json())
        await control.aclose()
        return text

    return asyncio.run(create())


def _target(address: str, api_key: str, pid: int) -> load.Target:
    columns = len(read_spec(DEFAULT_STATE_DIR / "artifacts" / MODEL).features)
    row = struct.pack(f"<{columns}f", *[1.0] * columns)
    matrix = pb.FeatureMatrix(rows=1, columns=columns, data=row)
    message = pb.PredictRequest(model=MODEL, matrix=matrix).SerializeToString()
    metadata = {"authorization": f"Bearer {api_key}"}
    return load.Target(address, METHOD, message, metadata, {"gateway": [pid]})


def _medians(runs: list[load.Figures]) -> dict[str, float]:
    return {
        "requests_per_second": median(run.requests_per_second for run in runs),
        "p50_ms": median(run.p50_ms for run in runs),
        "p99_ms": median(run.p99_ms for run in runs),
        "gateway_cpu_us": median(run.cpu_us["gateway"] for run in runs),
    }


def _pin(pids: list[int], core: int) -> None:
    for pid in pids:
        for thread in psutil.Process(pid).threads():
            psutil.Process(thread.id).cpu_affinity([core])


def _print(figures: dict[str, Any]) -> None:
    report.table("One step", ("", "us"), list(figures["step_us"].items()))
    columns = ("through the gateway", "requests/s", "p50 ms", "p99 ms", "CPU us a request")
    rows = [(name, *one.values()) for name, one in figures["gateway"].items()]
    report.table(f"Tiny tensors, {CALLERS} callers", columns, rows)


if __name__ == "__main__":
    main()
