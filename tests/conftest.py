"""What the tests share: a Redis, and one whole cluster that starts when a test first needs it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc
import pytest
from _pytest.capture import CaptureManager

from penstock.api.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from penstock.api.models.v1.models_pb2_grpc import ModelsServiceStub
from penstock.service.local.cluster import ClusterOptions, LocalCluster
from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer

if TYPE_CHECKING:
    from penstock.api.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceAsyncStub
    from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub
    from penstock.api.models.v1.models_pb2_grpc import ModelsServiceAsyncStub

Credentials = tuple[tuple[str, str], ...]
"""Metadata for a call: who makes it."""


class MakeKey(Protocol):
    """Creates an API key in the cluster and returns its text."""

    def __call__(self, *scopes: str, **limits: object) -> str: ...


@pytest.fixture(autouse=True)
def ledger_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the test's gateways write their ledger unless it says otherwise."""
    folder = tmp_path_factory.mktemp("ledger")
    monkeypatch.setenv("PENSTOCK_GATEWAY_LEDGER_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis with durable writes; use ``url()``, or ``url(3)`` for another database."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), free_port())
    child = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    try:
        assert server.wait()
        yield server
    finally:
        child.terminate()
        child.wait()


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """Everything, with every demo model; packages that were built before are used again."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def report(line: str) -> None:
        # Shown at once: building models for the first time takes a minute or two.
        capturing = isinstance(capture, CaptureManager)
        with capture.global_and_fixture_disabled() if capturing else nullcontext():
            print(f"\n  cluster: {line}", end="", flush=True)

    options = ClusterOptions(state_dir=tmp_path_factory.mktemp("cluster"))
    with LocalCluster(options, report) as running:
        yield running


@pytest.fixture(scope="session")
def api_key(cluster: LocalCluster) -> str:
    """A key that may do everything."""
    return cluster.api_key


@pytest.fixture(scope="session")
def credentials(api_key: str) -> Credentials:
    """To pass as ``metadata=`` of a call."""
    return bearer(api_key)


@pytest.fixture(scope="session")
def make_key(cluster: LocalCluster) -> MakeKey:
    """For keys that may do less: ``make_key("models:read", requests_per_minute=10)``."""

    def make(*scopes: str, **limits: object) -> str:
        return cluster.records.create_key("test", scopes or ("*",), **limits)

    return make


@pytest.fixture(scope="session")
async def channel(cluster: LocalCluster) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the gateway, without credentials."""
    async with grpc.aio.insecure_channel(cluster.endpoint) as channel:
        yield channel


@pytest.fixture(scope="session")
def inference(channel: grpc.aio.Channel) -> InferenceServiceAsyncStub:
    """The generated client of InferenceService."""
    return InferenceServiceStub(channel)


@pytest.fixture(scope="session")
def embeddings(channel: grpc.aio.Channel) -> EmbeddingsServiceAsyncStub:
    """The generated client of EmbeddingsService."""
    return EmbeddingsServiceStub(channel)


@pytest.fixture(scope="session")
def models(channel: grpc.aio.Channel) -> ModelsServiceAsyncStub:
    """The generated client of ModelsService."""
    return ModelsServiceStub(channel)


def bearer(api_key: str) -> Credentials:
    """Metadata that presents the key."""
    return (("authorization", f"Bearer {api_key}"),)
