"""The path of a call: who gets in, how refusals look, and that nothing is decoded too early."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway.calls import Call
from gateway.identity.identifier import Identifier
from gateway.ledger.ledger import Ledger
from gateway.ledger.sources import Source
from gateway.limits.admission import Admission
from gateway.metering import Meter
from gateway.pipeline import Pipeline
from gateway.settings import GatewaySettings
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.inference.v1 import inference_pb2_grpc
from penstock.api.types.v1 import metadata_pb2
from penstock.service.api_keys import KeyStore
from penstock.service.prices import PriceTable
from penstock.service.redis import connect
from penstock.service.tenants import TenantRecord, TenantStore

PEPPER = "a pepper of the tests"
INFERENCE = pb.DESCRIPTOR.services_by_name["InferenceService"]
Metadata = tuple[tuple[str, str], ...]


@dataclass
class Probe:
    """A servicer that does what the model's name says, and remembers."""

    calls: list[Call] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def Predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:  # noqa: N802
        self.calls.append(call)
        if request.model == "break":
            raise RuntimeError("secret detail")
        if request.model == "cancel":
            raise asyncio.CancelledError
        if request.model == "hang":
            try:
                await asyncio.sleep(60)
            finally:
                self.ended.set()
        call.model = request.model
        call.usage = metadata_pb2.Usage(input_units=3, unit=metadata_pb2.USAGE_UNIT_ROW)
        return pb.PredictResponse(predictions=[pb.Prediction(label=request.model)])

    async def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, call: Call
    ) -> AsyncIterator[pb.GenerateResponse]:
        self.calls.append(call)
        try:
            for _ in range(10_000):
                yield pb.GenerateResponse(delta=request.prompt)
                await asyncio.sleep(0)
        finally:
            self.ended.set()


@dataclass
class Served:
    """A server with the pipeline in front of the probe."""

    stub: inference_pb2_grpc.InferenceServiceAsyncStub
    address: str
    probe: Probe
    keys: KeyStore
    reader: InMemoryMetricReader
    key: str = ""

    @property
    def metadata(self) -> Metadata:
        return (("authorization", f"Bearer {self.key}"),)

    async def with_key(self, **options: Any) -> Metadata:
        _, text = await self.keys.create("acme", "test", options.pop("scopes", ["*"]), **options)
        return (("authorization", f"Bearer {text}"),)

    def counted(self) -> dict[tuple[str, str], int]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            (str(p.attributes["method"]).rpartition("/")[2], str(p.attributes["code"])): int(
                p.value
            )
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "penstock.calls"
            for p in metric.data.data_points
            if isinstance(p, NumberDataPoint) and p.attributes
        }


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
async def served(redis: Redis) -> AsyncIterator[Served]:
    async with serving(redis) as one:
        yield one


class serving:  # noqa: N801
    """One gateway's pipeline on a free port."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])

    async def __aenter__(self) -> Served:
        settings = GatewaySettings(
            key_pepper=SecretStr(PEPPER), stalled_reader_seconds=0.5, default_deadline_seconds=7.0
        )
        source = Source.create(Path(settings.ledger_dir))
        self._ledger = Ledger(source, settings, self._redis, PriceTable())
        self._ledger.start()
        reader = InMemoryMetricReader()
        self._provider = MeterProvider([reader])
        probe, keys = Probe(), KeyStore(self._redis, PEPPER.encode())
        self._limits = Admission(self._redis, self._redis, secrets.token_hex(16), None)
        self._limits.start()
        pipeline = Pipeline(
            Identifier(keys, TenantStore(self._redis)),
            self._limits,
            Meter(self._provider.get_meter("test")),
            self._ledger,
            settings,
        )
        self._server.add_generic_rpc_handlers((pipeline.serve(INFERENCE, probe),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        await TenantStore(self._redis).ensure(TenantRecord(id="acme", highest_tier=1))
        _, key = await keys.create("acme", "test", ["*"])
        return Served(stub, f"127.0.0.1:{port}", probe, keys, reader, key)

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._server.stop(None)
        await self._ledger.stop()
        await self._limits.stop()
        self._provider.shutdown()


def details(error: grpc.aio.AioRpcError, kind: type[Any]) -> Any:
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            return message
    return None


async def refused(call: Any) -> tuple[grpc.StatusCode, str, grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = details(caught.value, error_details_pb2.ErrorInfo)
    return caught.value.code(), info.reason, caught.value


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_good_call_is_answered_and_counted_once(served: Served) -> None:
    call = served.stub.Predict(pb.PredictRequest(model="m"), metadata=served.metadata)
    assert (await call).predictions[0].label == "m"
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-request-id"] == served.probe.calls[0].request_id
    assert served.probe.calls[0].principal.tenant == "acme"
    assert served.counted() == {("Predict", "OK"): 1}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "CREDENTIALS_MISSING"),
        ("", "CREDENTIALS_MISSING"),
        ("Basic abc", "CREDENTIALS_INVALID"),
        ("Bearer nonsense", "CREDENTIALS_INVALID"),
        ("Bearer psk_0123456789abcdef_" + "a" * 43 + "_000000", "CREDENTIALS_INVALID"),
    ],
)
async def test_bad_credentials_are_refused_before_the_body_is_decoded(
    served: Served, header: str | None, reason: str
) -> None:
    metadata = () if header is None else (("authorization", header),)
    async with grpc.aio.insecure_channel(served.address) as channel:
        raw: Any = channel.unary_unary(f"/{INFERENCE.full_name}/Predict")
        code, found, _ = await refused(raw(b"\xff\xff\xff", metadata=metadata))
    assert (code, found) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert served.probe.calls == []


async def test_an_undecodable_body_is_an_invalid_argument(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        raw: Any = channel.unary_unary(f"/{INFERENCE.full_name}/Predict")
        code, reason, _ = await refused(raw(b"\xff\xff\xff", metadata=served.metadata))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_key_of_another_cluster_is_refused(served: Served, redis: Redis) -> None:
    _, text = await KeyStore(redis, b"the pepper of another cluster").create("acme", "x", ["*"])
    code, reason, _ = await refused(
        served.stub.Predict(
            pb.PredictRequest(model="m"), metadata=(("authorization", f"Bearer {text}"),)
        )
    )
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_a_missing_scope_is_named(served: Served) -> None:
    metadata = await served.with_key(scopes=["models:read"])
    code, reason, error = await refused(
        served.stub.Predict(pb.PredictRequest(model="m"), metadata=metadata)
    )
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    info = details(error, error_details_pb2.ErrorInfo)
    assert info.metadata == {"scope": "inference:invoke"}


async def test_a_revoked_key_is_refused_within_five_seconds(served: Served) -> None:
    request = pb.PredictRequest(model="m")
    await served.stub.Predict(request, metadata=served.metadata)
    await served.keys.revoke(served.key.split("_")[1])

    async def call_on() -> None:
        while True:
            await served.stub.Predict(request, metadata=served.metadata)
            await asyncio.sleep(0.05)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call_on(), 5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_unforeseen_error_leaves_as_internal_and_tells_nothing(served: Served) -> None:
    code, reason, error = await refused(
        served.stub.Predict(pb.PredictRequest(model="break"), metadata=served.metadata)
    )
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert error.details() == "internal error"


async def test_a_handler_that_raises_cancelled_does_not_leave_its_caller_hanging(
    served: Served,
) -> None:
    code, _, _ = await refused(
        served.stub.Predict(pb.PredictRequest(model="cancel"), metadata=served.metadata, timeout=5)
    )
    assert code is grpc.StatusCode.CANCELLED


async def test_a_method_that_is_not_served_says_so_to_known_callers_only(served: Served) -> None:
    request = pb.ClassifyRequest(model="m", texts=["x"])
    code, reason, _ = await refused(served.stub.Classify(request, metadata=served.metadata))
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
    code, _, _ = await refused(served.stub.Classify(request))
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_without_a_deadline_gets_the_default(served: Served) -> None:
    request = pb.PredictRequest(model="m")
    await served.stub.Predict(request, metadata=served.metadata)
    await served.stub.Predict(request, metadata=served.metadata, timeout=3)
    default, own = (call.deadline - call.started for call in served.probe.calls)
    assert default == pytest.approx(7.0)
    assert 2.0 < own < 3.1


async def test_a_deadline_that_passes_ends_the_handler(served: Served) -> None:
    call = served.stub.Predict(
        pb.PredictRequest(model="hang"), metadata=served.metadata, timeout=0.3
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(served.probe.ended.wait(), 5)
    await until(lambda: served.counted() == {("Predict", "DEADLINE_EXCEEDED"): 1})


async def test_a_cancelled_stream_ends_the_handler(served: Served) -> None:
    call = served.stub.Generate(pb.GenerateRequest(prompt="x"), metadata=served.metadata)
    first = await call.read()
    assert isinstance(first, pb.GenerateResponse)
    assert first.delta == "x"
    call.cancel()
    await asyncio.wait_for(served.probe.ended.wait(), 5)
    await until(lambda: ("Generate", "CANCELLED") in served.counted())


async def test_a_reader_that_stalls_is_cut_off(served: Served) -> None:
    call = served.stub.Generate(pb.GenerateRequest(prompt="x" * 100_000), metadata=served.metadata)
    await call.read()
    await asyncio.wait_for(served.probe.ended.wait(), 10)
    await until(lambda: ("Generate", "ABORTED") in served.counted())


async def test_a_limit_holds_over_two_gateways_at_once(served: Served, redis: Redis) -> None:
    metadata = await served.with_key(requests_per_minute=60)
    async with serving(redis) as second:
        calls = [
            stub.Predict(pb.PredictRequest(model="m"), metadata=metadata)
            for _ in range(60)
            for stub in (served.stub, second.stub)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    passed = [answer for answer in answers if isinstance(answer, pb.PredictResponse)]
    errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    # A bucket of 60 that refills by one a second, and the calls take a moment.
    assert 55 <= len(passed) <= 65
    assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert details(errors[0], error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    assert details(errors[0], error_details_pb2.QuotaFailure).violations
    assert int(dict(errors[0].trailing_metadata() or ())["grpc-retry-pushback-ms"]) > 0


async def test_an_answer_tells_what_is_left_of_the_rate(served: Served) -> None:
    metadata = await served.with_key(requests_per_minute=60)
    call = served.stub.Predict(pb.PredictRequest(model="m"), metadata=metadata)
    await call
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-ratelimit-limit-requests"] == "60"
    assert trailing["x-ratelimit-remaining-requests"] == "59"
    assert trailing["x-ratelimit-reset-requests"] == "1"
    call = served.stub.Predict(pb.PredictRequest(model="m"), metadata=served.metadata)
    await call
    assert not [key for key, _ in await call.trailing_metadata() if key.startswith("x-ratelimit")]


async def test_a_stream_tells_what_is_left_before_its_first_message(served: Served) -> None:
    metadata = await served.with_key(requests_per_minute=60)
    call = served.stub.Generate(pb.GenerateRequest(prompt="x"), metadata=metadata)
    initial = dict(await call.initial_metadata())
    assert initial["x-ratelimit-remaining-requests"] == "59"
    call.cancel()
    await asyncio.wait_for(served.probe.ended.wait(), 5)


async def test_a_call_that_can_never_pass_is_not_to_be_retried(served: Served) -> None:
    metadata = await served.with_key(requests_per_minute=0)
    code, reason, error = await refused(
        served.stub.Predict(pb.PredictRequest(model="m"), metadata=metadata)
    )
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "-1"
    violation = details(error, error_details_pb2.QuotaFailure).violations[0]
    assert violation.subject.startswith("key:")
    assert details(error, error_details_pb2.RetryInfo) is None


async def test_two_authorization_headers_are_refused(served: Served) -> None:
    code, reason, _ = await refused(
        served.stub.Predict(
            pb.PredictRequest(model="m"), metadata=(*served.metadata, *served.metadata)
        )
    )
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
