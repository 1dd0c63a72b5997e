"""Whether a cluster answers, asked where its callers ask: at the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from penstock.api.models.v1 import models_pb2, models_pb2_grpc

_CALL_SECONDS = 5.0


@dataclass(frozen=True)
class ServedVersion:
    """One version of one model, as the gateway sees it."""

    model: str
    version: str
    task: str
    state: int
    """A models_pb2.ModelState."""
    replicas: int

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == models_pb2.MODEL_STATE_READY

    @property
    def failed(self) -> bool:
        """Whether it cannot be loaded."""
        return self.state == models_pb2.MODEL_STATE_FAILED

    @property
    def state_name(self) -> str:
        """The state in one lower-case word."""
        name = models_pb2.ModelState.Name(models_pb2.ModelState.ValueType(self.state))
        return name.removeprefix("MODEL_STATE_").lower()


class GatewayView:
    """The models as a caller with this key sees them."""

    def __init__(self, channel: grpc.Channel, api_key: str) -> None:
        self._models = models_pb2_grpc.ModelsServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {api_key}"),)

    def versions(self) -> list[ServedVersion] | None:
        """Every version of every model; None while no gateway answers."""
        try:
            return [version for model in self._list() for version in self._versions(model)]
        except grpc.RpcError:
            return None

    def _list(self) -> list[models_pb2.Model]:
        request = models_pb2.ListModelsRequest(page_size=1000)
        answer = self._models.ListModels(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        return list(answer.models)

    def _versions(self, model: models_pb2.Model) -> Iterator[ServedVersion]:
        request = models_pb2.ListVersionsRequest(model=model.name, page_size=1000)
        answer = self._models.ListVersions(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        for version in answer.versions:
            yield ServedVersion(
                model.name, version.version, model.task, version.state, version.ready_replicas
            )


@contextmanager
def gateway_view(endpoint: str, api_key: str) -> Iterator[GatewayView]:
    """A view over a connection of its own."""
    # Asked often while the port is still closed, so the connection must not back off for long.
    options = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    with grpc.insecure_channel(endpoint, options) as channel:
        yield GatewayView(channel, api_key)
