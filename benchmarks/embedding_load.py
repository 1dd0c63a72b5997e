"""The embedding model under callers with one text each, straight to Triton and through Penstock."""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from collections.abc import Awaitable, Callable
from statistics import median, quantiles
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from gateway.tensors import bytes_tensor
from gateway.upstream import infer_request
from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.api.embeddings.v1 import embeddings_pb2_grpc
from penstock.service.local.cluster import LocalCluster
from penstock.service.packages import triton_name

MODEL, VERSION = "minilm", "1"
CALLERS = 64
ROUNDS = 5
TEXTS_A_ROUND = 320
SEED = 20

_MODULES = (
    *("argparse", "asyncio", "bisect", "calendar", "collections", "concurrent.futures", "csv"),
    *("datetime", "decimal", "difflib", "email.message", "enum", "fractions", "functools", "heapq"),
    *("http.client", "inspect", "ipaddress", "itertools", "logging", "os", "pathlib", "random"),
    *("re", "shutil", "socket", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile"),
    *("textwrap", "threading", "typing", "unittest.case", "urllib.request", "uuid", "zipfile"),
)

Embed = Callable[[str], Awaitable[object]]


def mixed_texts() -> list[str]:
    """Docstrings of Python's standard library: from a line to a page, the same on every machine."""
    found: set[str] = set()
    for name in _MODULES:
        for thing in vars(importlib.import_module(name)).values():
            members = vars(thing).values() if isinstance(thing, type) else ()
            for one in (thing, *members):
                document = getattr(one, "__doc__", None)
                if isinstance(document, str) and 20 <= len(document) <= 2000:
                    found.add(document)
    texts = sorted(found)
    random.Random(SEED).shuffle(texts)
    return texts[:TEXTS_A_ROUND]


async def measure_embedding(cluster: LocalCluster, replica: str) -> dict[str, Any]:
    """Texts a second and latencies, both in turn; ``ratio`` is Penstock over straight."""
    texts = mixed_texts()
    metadata = (("authorization", f"Bearer {cluster.api_key}"),)
    async with (
        grpc.aio.insecure_channel(cluster.endpoint) as ours,
        grpc.aio.insecure_channel(replica) as theirs,
    ):
        embeddings = embeddings_pb2_grpc.EmbeddingsServiceStub(ours)
        triton = service_pb2_grpc.GRPCInferenceServiceStub(theirs)

        async def through(text: str) -> object:
            request = pb.EmbedRequest(
                model=MODEL,
                texts=[text],
                options=pb.EmbedOptions(
                    encoding=pb.VECTOR_ENCODING_PACKED, truncation=pb.TRUNCATION_END
                ),
            )
            return await embeddings.Embed(request, metadata=metadata)

        async def straight(text: str) -> object:
            tensor = bytes_tensor("text", [text.encode()])
            return await triton.ModelInfer(infer_request(triton_name(MODEL, VERSION), 1, [tensor]))

        ways: dict[str, Embed] = {"straight": straight, "penstock": through}
        for way in ways.values():
            await _round(way, texts[:CALLERS])
        rounds: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                rounds[name].append(await _round(way, texts))
    found: dict[str, Any] = {"callers": CALLERS, "texts": len(texts), "rounds": ROUNDS}
    for name, runs in rounds.items():
        cuts = [quantiles(latencies, n=100) for _, latencies in runs]
        found[name] = {
            "texts_per_second": median(rate for rate, _ in runs),
            "p50_ms": median(cut[49] for cut in cuts) * 1e3,
            "p99_ms": median(cut[98] for cut in cuts) * 1e3,
        }
    pairs = zip(rounds["penstock"], rounds["straight"], strict=True)
    found["ratio"] = median(ours[0] / theirs[0] for ours, theirs in pairs)
    return found


async def _round(embed: Embed, texts: list[str]) -> tuple[float, list[float]]:
    waiting = iter(texts)
    latencies: list[float] = []

    async def caller() -> None:
        for text in waiting:
            began = time.perf_counter()
            await embed(text)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    return len(texts) / (time.perf_counter() - began), latencies
