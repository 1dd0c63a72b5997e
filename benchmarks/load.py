"""Load on one unary gRPC method over loopback: h2load where there is one, else grpc.aio callers.

h2load (Debian package nghttp2-client) sends one encoded request again and again; it counts HTTP
statuses, not gRPC ones, so whoever uses it checks the server's own count of good answers.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc
import psutil

CALLS_A_CONNECTION = 8


@dataclass(frozen=True)
class Target:
    """One method of one server, with a request to repeat."""

    address: str
    method: str
    message: bytes
    metadata: Mapping[str, str]
    processes: Mapping[str, Sequence[int]]
    """Whose CPU time is counted: name -> pids."""


@dataclass(frozen=True)
class Figures:
    """What one run measured."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: Mapping[str, float]
    """CPU microseconds a request, by process name."""


def run(target: Target, callers: int, seconds: int, cpu: int | None = None) -> Figures:
    """Drives ``callers`` calls at a time for about ``seconds``."""
    before = _cpu_seconds(target)
    drive = _h2load if shutil.which("h2load") else _python
    elapsed, latencies = drive(target, callers, seconds, cpu)
    after = _cpu_seconds(target)
    cuts = quantiles(latencies, n=100)
    return Figures(
        requests=len(latencies),
        requests_per_second=len(latencies) / elapsed,
        p50_ms=cuts[49] * 1e3,
        p99_ms=cuts[98] * 1e3,
        cpu_us={name: (after[name] - before[name]) / len(latencies) * 1e6 for name in after},
    )


def ok_count(metrics: str, method: str) -> int:
    """How many calls of the method a gateway has answered with OK; ``metrics`` is host:port."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("penstock_calls_total") and 'code="OK"' in line and method in line
    )


def generator() -> str:
    """What makes the load here."""
    return "h2load" if shutil.which("h2load") else "grpc.aio"


def _cpu_seconds(target: Target) -> dict[str, float]:
    found = {}
    for name, pids in target.processes.items():
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        found[name] = sum(t.user + t.system for t in times)
    return found


def _h2load(
    target: Target, callers: int, seconds: int, cpu: int | None
) -> tuple[float, list[float]]:
    connections = max(1, callers // CALLS_A_CONNECTION)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(struct.pack(">BI", 0, len(target.message)) + target.message)
        headers = {"content-type": "application/grpc", "te": "trailers", **target.metadata}
        command = [
            *(["taskset", "-c", str(cpu)] if cpu is not None else []),
            "h2load",
            f"--duration={seconds}",
            f"--clients={connections}",
            f"--max-concurrent-streams={callers // connections}",
            f"--data={body}",
            f"--log-file={log}",
            *[f"--header={name}: {value}" for name, value in headers.items()],
            f"http://{target.address}{target.method}",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=seconds + 60)
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [line for line in lines if line[1] != "200"]
    if failed or not lines:
        raise RuntimeError(f"{len(failed)} of {len(lines)} requests failed")
    return seconds, [int(line[2]) / 1e6 for line in lines]


def _python(
    target: Target, callers: int, seconds: int, cpu: int | None
) -> tuple[float, list[float]]:
    return asyncio.run(_call_for(target, callers, seconds))


async def _call_for(target: Target, callers: int, seconds: float) -> tuple[float, list[float]]:
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(target.address) as channel:
        call: Any = channel.unary_unary(target.method)
        metadata = tuple(target.metadata.items())
        began = time.perf_counter()

        async def caller() -> None:
            while (start := time.perf_counter()) - began < seconds:
                await call(target.message, metadata=metadata)
                latencies.append(time.perf_counter() - start)

        await asyncio.gather(*[caller() for _ in range(callers)])
        return time.perf_counter() - began, latencies
