"""Twenty ways to call badly: each has its code and reason, leaks nothing, and stays off the GPU."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from redis.asyncio import Redis

from penstock.api.embeddings.v1 import embeddings_pb2, embeddings_pb2_grpc
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.inference.v1 import inference_pb2_grpc
from penstock.api.types.v1 import content_pb2, metadata_pb2
from penstock.service.api_keys import KeyStore, mint, parse
from penstock.service.local.cluster import LocalCluster
from penstock.service.redis import connect
from penstock.service.registry import ReplicaRegistry
from tests.conftest import Credentials, MakeKey, bearer
from tests.e2e.refusals import Refusal, TritonLog, refusal_of
from tests.gateway.pictures import picture, png_header

Code = grpc.StatusCode
GOOD = pb.ClassifyRequest(model="support-intent", texts=["my card was stolen"])
REVOKED_WITHIN_SECONDS = 5.0


@pytest.fixture(scope="module")
async def triton(cluster: LocalCluster) -> AsyncIterator[TritonLog]:
    redis = connect(cluster.state.soft_redis_url)
    (replica,) = await ReplicaRegistry(redis).replicas()
    await redis.aclose()
    log = TritonLog(replica.endpoint)
    yield log
    await log.close()


@pytest.fixture(scope="module")
async def control(cluster: LocalCluster) -> AsyncIterator[Redis]:
    redis = connect(cluster.state.control_redis_url)
    yield redis
    await redis.aclose()


class Caller:
    """Calls badly and reads the refusal."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self.channel = channel
        self.inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self.embeddings = embeddings_pb2_grpc.EmbeddingsServiceStub(channel)
        self.credentials = credentials

    async def refused(
        self, method: str, request: Any, metadata: Any = None, seconds: float = 30.0
    ) -> Refusal:
        """The refusal of a unary method, or of a stream's first message."""
        service = self.embeddings if method == "Embed" else self.inference
        metadata = self.credentials if metadata is None else metadata
        call = getattr(service, method)(request, metadata=metadata, timeout=seconds)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if method == "Generate" else call)
        return refusal_of(caught.value)


@pytest.fixture(scope="module")
def caller(channel: grpc.aio.Channel, credentials: Credentials) -> Caller:
    return Caller(channel, credentials)


def invalid(refusal: Refusal, *fields: str) -> None:
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")
    assert refusal.fields == fields
    assert refusal.request_id


async def test_the_good_call_that_the_bad_ones_vary_is_good(caller: Caller) -> None:
    answer = await caller.inference.Classify(GOOD, metadata=caller.credentials)
    assert answer.results


async def test_without_a_key_nobody_is_let_in(caller: Caller, triton: TritonLog) -> None:
    refusal = await triton.untouched(lambda: caller.refused("Classify", GOOD, metadata=()))
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "CREDENTIALS_MISSING")


@pytest.mark.parametrize(
    "authorization",
    ["Bearer psk_mistyped", "Bearer", "Basic dXNlcjpwYXNz", "psk_x", f"Bearer {mint()[0]}"],
    ids=["mistyped", "empty", "basic", "no scheme", "unknown"],
)
async def test_a_broken_key_is_refused(
    caller: Caller, triton: TritonLog, authorization: str
) -> None:
    metadata = (("authorization", authorization),)
    refusal = await triton.untouched(lambda: caller.refused("Classify", GOOD, metadata))
    assert refusal.code is Code.UNAUTHENTICATED
    assert refusal.reason in ("CREDENTIALS_INVALID", "CREDENTIALS_MISSING")


async def test_a_revoked_key_is_refused_within_seconds(
    caller: Caller, cluster: LocalCluster, make_key: MakeKey, control: Redis
) -> None:
    text = make_key("*")
    key = parse(text)
    assert key is not None
    await caller.inference.Classify(GOOD, metadata=bearer(text))
    await KeyStore(control, cluster.state.key_pepper.encode()).revoke(key.id)
    revoked = time.monotonic()
    while True:
        try:
            await caller.inference.Classify(GOOD, metadata=bearer(text))
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            break
        assert time.monotonic() - revoked < REVOKED_WITHIN_SECONDS
        await asyncio.sleep(0.1)
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_a_key_without_the_scope_is_refused(
    caller: Caller, triton: TritonLog, make_key: MakeKey
) -> None:
    metadata = bearer(make_key("models:read", "embeddings:*"))
    refusal = await triton.untouched(lambda: caller.refused("Classify", GOOD, metadata))
    assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")


async def test_an_unknown_model_and_one_of_others_look_the_same(
    caller: Caller, triton: TritonLog, make_key: MakeKey
) -> None:
    nowhere = pb.ClassifyRequest(model="nope", texts=["x"])
    refusal = await triton.untouched(lambda: caller.refused("Classify", nowhere))
    assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")
    elsewhere = bearer(make_key("*", models=("fraud",)))
    foreign = await triton.untouched(lambda: caller.refused("Classify", GOOD, elsewhere))
    assert (foreign.code, foreign.reason) == (refusal.code, refusal.reason)
    assert foreign.text.replace(GOOD.model, "nope") == refusal.text


def matrix(rows: int, columns: int, data: bytes) -> pb.PredictRequest:
    shape = pb.FeatureMatrix(rows=rows, columns=columns, data=data)
    return pb.PredictRequest(model="diabetes", matrix=shape)


NAN = np.full((1, 10), np.nan, dtype="<f4").tobytes()
BOMB = content_pb2.Image(data=png_header(65_500, 65_500))
CORRUPT = content_pb2.Image(data=picture("PNG")[:20])
INVALID: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "bad model name": ("Classify", pb.ClassifyRequest(model="../x", texts=["x"]), ("model",)),
    "no texts": ("Classify", pb.ClassifyRequest(model="support-intent"), ("texts",)),
    "an empty text": (
        "Embed",
        embeddings_pb2.EmbedRequest(model="minilm", texts=["x", ""]),
        ("texts[1]",),
    ),
    "10,001 texts": (
        "Embed",
        embeddings_pb2.EmbedRequest(model="minilm", texts=["x"] * 10_001),
        ("texts",),
    ),
    "10,001 rows": ("Predict", matrix(10_001, 10, bytes(400_040)), ("matrix.rows",)),
    "dimensions and bytes differ": ("Predict", matrix(2, 10, bytes(79)), ("matrix.data",)),
    "too few columns": ("Predict", matrix(2, 9, bytes(72)), ("matrix.columns",)),
    "NaN": ("Predict", matrix(1, 10, NAN), ("matrix.data",) * 10),
    "an image bomb": (
        "DetectObjects",
        pb.DetectObjectsRequest(model="scenes", images=[BOMB]),
        ("images[0].data",),
    ),
    "a corrupt image": (
        "Classify",
        pb.ClassifyRequest(model="digits", images=[CORRUPT]),
        ("images[0].data",),
    ),
    "a text of 1 MB": (
        "ExtractEntities",
        pb.ExtractEntitiesRequest(model="entities", texts=["x" * (1 << 20)]),
        ("texts[0]",),
    ),
    "an unknown enum": (
        "Embed",
        embeddings_pb2.EmbedRequest(
            model="minilm",
            texts=["x"],
            options=embeddings_pb2.EmbedOptions(encoding=99),  # type: ignore[arg-type]
        ),
        ("options.encoding",),
    ),
    "an unknown tier": (
        "Generate",
        pb.GenerateRequest(model="storyteller", prompt="x", tier=99),  # type: ignore[arg-type]
        ("tier",),
    ),
}


@pytest.mark.parametrize("name", INVALID)
async def test_bad_input_is_named_and_never_reaches_a_model(
    caller: Caller, triton: TritonLog, name: str
) -> None:
    method, request, fields = INVALID[name]
    started = time.monotonic()
    invalid(await triton.untouched(lambda: caller.refused(method, request)), *fields)
    assert time.monotonic() - started < 5.0


async def test_an_image_that_is_corrupt_behind_its_header_is_refused_by_the_model(
    caller: Caller,
) -> None:
    whole = bytearray(picture("PNG", (64, 64)))
    at = whole.index(b"IDAT") + 8
    whole[at : at + 20] = bytes(20)
    image = content_pb2.Image(data=bytes(whole))
    request = pb.ClassifyRequest(model="digits", images=[image])
    refusal = await caller.refused("Classify", request)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_message_that_is_too_large_is_refused(caller: Caller, triton: TritonLog) -> None:
    request = matrix(1, 1, bytes(33 * 1024 * 1024))
    refusal = await triton.untouched(lambda: caller.refused("Predict", request))
    assert refusal.code is Code.RESOURCE_EXHAUSTED


async def test_metadata_that_is_too_large_is_refused(caller: Caller, triton: TritonLog) -> None:
    metadata = (*caller.credentials, ("x-notes", "x" * 20_000))
    refusal = await triton.untouched(lambda: caller.refused("Classify", GOOD, metadata))
    assert refusal.code is Code.RESOURCE_EXHAUSTED


async def test_a_deadline_that_has_passed_runs_nothing(caller: Caller, triton: TritonLog) -> None:
    refusal = await triton.untouched(lambda: caller.refused("Classify", GOOD, seconds=0.0))
    assert refusal.code is Code.DEADLINE_EXCEEDED


async def test_a_call_without_a_deadline_is_answered(caller: Caller) -> None:
    answer = await caller.inference.Classify(GOOD, metadata=caller.credentials, timeout=None)
    assert answer.metadata.usage.unit == metadata_pb2.USAGE_UNIT_TOKEN


@pytest.mark.parametrize(
    "method",
    [
        "/penstock.api.inference.v1.InferenceService/Divine",
        "/penstock.internal.scheduler.v1.SchedulerService/LeaseTasks",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        "/inference.GRPCInferenceService/SystemSharedMemoryRegister",
        "/penstock.api.batch.v1.BatchService/CreateBatch",
        "/x/y",
    ],
)
async def test_an_unknown_method_is_unimplemented(
    caller: Caller, triton: TritonLog, method: str
) -> None:
    async def attempt() -> Refusal:
        call: Any = caller.channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=caller.credentials)
        return refusal_of(caught.value)

    assert (await triton.untouched(attempt)).code is Code.UNIMPLEMENTED


async def test_a_cancelled_stream_stops_the_model(caller: Caller, cluster: LocalCluster) -> None:
    spent, request = 0.0, pb.GenerateRequest()
    for seed in range(20):
        sampling = pb.GenerationParameters(max_tokens=480, temperature=1, seed=seed)
        request = pb.GenerateRequest(model="storyteller", prompt="Once", parameters=sampling)
        started = _cpu_seconds(cluster)
        told = caller.inference.Generate(request, metadata=caller.credentials)
        pieces = len([step async for step in told])
        spent = await _settled_cpu_seconds(cluster) - started
        if pieces > 100:
            break
    assert spent > 0.1

    started = _cpu_seconds(cluster)
    call = caller.inference.Generate(request, metadata=caller.credentials)
    await call.read()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    assert await call.code() is Code.CANCELLED
    assert await _settled_cpu_seconds(cluster) - started < spent / 2


def _cpu_seconds(cluster: LocalCluster) -> float:
    """What Triton and the processes of its models have computed so far."""
    server = psutil.Process(cluster.process("triton-0").pid)
    used = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(times.user + times.system for times in used)


async def _settled_cpu_seconds(cluster: LocalCluster) -> float:
    """The same, once nothing has been computing for a moment but the odd probe."""
    async with asyncio.timeout(20):
        before = _cpu_seconds(cluster)
        while True:
            await asyncio.sleep(0.25)
            now = _cpu_seconds(cluster)
            if now - before < 0.05:
                return now
            before = now
