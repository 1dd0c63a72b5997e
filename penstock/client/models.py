"""The SDK's methods that say which models there are."""

from __future__ import annotations

from penstock.api.models.v1 import models_pb2 as models
from penstock.api.models.v1.models_pb2_grpc import ModelsServiceStub
from penstock.client.operations import Paged, Unary


def list_models(task: str = "", *, timeout: float | None = None) -> Paged[models.Model]:
    """Every model that the key may use, by name; only those of one task where it is given.

    ``timeout`` is in seconds a page. Raises Unauthenticated, ScopeMissing, RateLimited.
    """
    request = models.ListModelsRequest(task=task)
    return Paged(ModelsServiceStub, "ListModels", request, lambda page: list(page.models), timeout)


def get_model(model: str, *, timeout: float | None = None) -> Unary[models.Model]:
    """One model: task, traffic, state and signature.

    ``timeout`` is in seconds. Raises ModelNotFound, Unauthenticated, ScopeMissing, RateLimited.
    """
    request = models.GetModelRequest(model=model)
    return Unary(ModelsServiceStub, "GetModel", request, lambda answer: answer.model, timeout)


def list_versions(model: str, *, timeout: float | None = None) -> Paged[models.ModelVersion]:
    """Every version of a model, newest first.

    ``timeout`` is in seconds a page. Raises ModelNotFound, Unauthenticated, ScopeMissing,
    RateLimited.
    """
    request = models.ListVersionsRequest(model=model)
    return Paged(
        ModelsServiceStub, "ListVersions", request, lambda page: list(page.versions), timeout
    )
