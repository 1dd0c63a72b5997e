"""What the gateway costs: a bare echo server, Triton straight and Penstock, side by side.

Tiny tensors by h2load at 1, 16 and 64 callers, every server of Python on the first core and the
load and Triton on the second; then the embedding model on mixed-length texts at 64 callers,
straight and through the gateway. Rounds alternate, medians are quoted. ``make bench-gateway``.
"""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import echo_server, load, report
from benchmarks.embedding_load import measure_embedding
from benchmarks.gateway_plot import draw
from gateway.tensors import Tensor
from gateway.upstream import infer_request
from penstock import Client
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.local.cluster import ClusterOptions, LocalCluster
from penstock.service.local.ports import free_port
from penstock.service.local.state import DEFAULT_STATE_DIR
from penstock.service.packages import read_spec, triton_name
from penstock.service.redis import connect
from penstock.service.registry import ReplicaRegistry

ROUNDS = 5
SECONDS = 3
CALLERS = (1, 16, 64)
SERVER_CORE, LOAD_CORE = 0, 1
MODEL = "fraud"
OIP_INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/penstock.api.inference.v1.InferenceService/Predict"


def main() -> None:
    """Measures, prints the table, writes JSON and plot, prints the JSON last."""
    metrics = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        options = ClusterOptions(
            state_dir=Path(folder),
            models=(MODEL, "minilm"),
            settings={"PENSTOCK_GATEWAY_METRICS_LISTEN": metrics},
        )
        with LocalCluster(options) as cluster, _echo() as echo:
            replica = asyncio.run(_replica_endpoint(cluster))
            tiny = _tiny_tensors(cluster, replica, echo, metrics)
            embedding = asyncio.run(measure_embedding(cluster, replica))
    figures = {"generator": load.generator(), "tiny_tensors": tiny, "embedding": embedding}
    path = report.write("gateway", figures)
    draw(figures, path.with_suffix(".svg"))
    _print(figures)
    print(json.dumps(figures))


def _tiny_tensors(
    cluster: LocalCluster, replica: str, echo: psutil.Popen, metrics: str
) -> dict[str, Any]:
    targets = _targets(cluster, replica, echo)
    _check_answers(cluster)
    found: dict[str, Any] = {}
    for callers in CALLERS:
        rounds: dict[str, list[load.Figures]] = {name: [] for name in targets}
        for _ in range(ROUNDS):
            for name, target in targets.items():
                answered = load.ok_count(metrics, "Predict")
                figures = load.run(target, callers, SECONDS, LOAD_CORE)
                if name == "penstock":
                    _compare_counts(figures.requests, load.ok_count(metrics, "Predict") - answered)
                rounds[name].append(figures)
        found[str(callers)] = {name: _medians(runs) for name, runs in rounds.items()}
        echo_rate = found[str(callers)]["echo"]["requests_per_second"]
        rate = found[str(callers)]["penstock"]["requests_per_second"]
        found[str(callers)]["penstock_to_echo"] = rate / echo_rate
    return found


async def _replica_endpoint(cluster: LocalCluster) -> str:
    soft = connect(cluster.state.soft_redis_url)
    try:
        (replica,) = await ReplicaRegistry(soft).replicas()
    finally:
        await soft.aclose()
    return replica.endpoint


def _targets(cluster: LocalCluster, replica: str, echo: psutil.Popen) -> dict[str, load.Target]:
    spec = read_spec(DEFAULT_STATE_DIR / "artifacts" / MODEL)
    columns = len(spec.features)
    row = struct.pack(f"<{columns}f", *[1.0] * columns)
    predict = pb.PredictRequest(
        model=MODEL, matrix=pb.FeatureMatrix(rows=1, columns=columns, data=row)
    ).SerializeToString()
    infer = infer_request(
        triton_name(spec.name, spec.version), 1, [Tensor("features", "FP32", (columns,), row)]
    ).SerializeToString()
    gateway = cluster.process("gateway-0").pid
    triton = [p.pid for p in psutil.Process(cluster.process("triton-0").pid).children(True)]
    _pin([gateway], SERVER_CORE)
    _pin(triton, LOAD_CORE)
    key = {"authorization": f"Bearer {cluster.api_key}"}
    return {
        "echo": load.Target(
            f"127.0.0.1:{echo.stdout.readline().decode().strip()}",
            echo_server.METHOD,
            predict,
            {},
            {"server": [echo.pid]},
        ),
        "triton": load.Target(replica, OIP_INFER, infer, {}, {"triton": triton}),
        "penstock": load.Target(
            cluster.endpoint, PREDICT, predict, key, {"gateway": [gateway], "triton": triton}
        ),
    }


def _check_answers(cluster: LocalCluster) -> None:
    spec = read_spec(DEFAULT_STATE_DIR / "artifacts" / MODEL)
    with Client(cluster.endpoint, api_key=cluster.api_key, tls=False) as client:
        answer = client.predict(MODEL, [[1.0] * len(spec.features)])
    total = sum(answer[0].probabilities.values())
    if abs(total - 1.0) > 1e-3:
        raise RuntimeError(f"probabilities sum to {total}")


def _compare_counts(sent: int, answered: int) -> None:
    # h2load counts HTTP 200, which a gRPC error also is; at the end it drops calls in flight.
    if not sent <= answered <= sent + max(CALLERS):
        raise RuntimeError(f"{sent} requests finished, the gateway answered {answered} with OK")


def _medians(runs: list[load.Figures]) -> dict[str, Any]:
    def of(get: Callable[[load.Figures], float]) -> float:
        return median(get(run) for run in runs)

    return {
        "requests_per_second": of(lambda run: run.requests_per_second),
        "p50_ms": of(lambda run: run.p50_ms),
        "p99_ms": of(lambda run: run.p99_ms),
        "cpu_us_per_request": {
            name: of(lambda run, name=name: run.cpu_us[name])  # type: ignore[misc]
            for name in runs[0].cpu_us
        },
    }


@contextmanager
def _echo() -> Iterator[psutil.Popen]:
    process = psutil.Popen([sys.executable, "-m", "benchmarks.echo_server"], stdout=subprocess.PIPE)
    process.cpu_affinity([SERVER_CORE])
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _pin(pids: list[int], core: int) -> None:
    for pid in pids:
        for thread in psutil.Process(pid).threads():
            psutil.Process(thread.id).cpu_affinity([core])


def _print(figures: dict[str, Any]) -> None:
    rows = []
    for callers, servers in figures["tiny_tensors"].items():
        for name in ("echo", "triton", "penstock"):
            one = servers[name]
            cpu = one["cpu_us_per_request"]
            rows.append(
                (
                    f"{name}, {callers} callers",
                    one["requests_per_second"],
                    one["p50_ms"],
                    one["p99_ms"],
                    " + ".join(f"{part} {us:.0f}" for part, us in cpu.items()),
                )
            )
    columns = ("tiny tensors", "requests/s", "p50 ms", "p99 ms", "CPU us a request")
    report.table("Gateway", columns, rows)
    embedding = figures["embedding"]
    report.table(
        f"Embedding, mixed-length texts, {embedding['callers']} callers",
        ("", "texts/s", "p50 ms", "p99 ms"),
        [
            (name, *[embedding[name][k] for k in ("texts_per_second", "p50_ms", "p99_ms")])
            for name in ("straight", "penstock")
        ],
    )


if __name__ == "__main__":
    main()
