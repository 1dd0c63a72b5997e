"""Every method of every contract has a scope, and scopes cover what they say."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from tritonclient.grpc import service_pb2

import penstock.api
from gateway.authorisation import SCOPES, authorise
from gateway.calls import Principal
from penstock.errors import ScopeMissing

OPEN_INFERENCE_SERVED = {
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
}


def public_services() -> list[ServiceDescriptor]:
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(penstock.api.__path__, "penstock.api.")
        if module.name.endswith("_pb2")
    ]
    return [
        service for module in modules for service in module.DESCRIPTOR.services_by_name.values()
    ]


def principal(*scopes: str) -> Principal:
    return Principal("acme", "key", frozenset(scopes), 1)


def test_every_public_method_is_in_the_table_and_nothing_else_is() -> None:
    contracted = {
        f"/{service.full_name}/{method.name}"
        for service in public_services()
        for method in service.methods
    }
    oip = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    contracted |= {f"/{oip.full_name}/{name}" for name in OPEN_INFERENCE_SERVED}
    assert set(SCOPES) == contracted


@pytest.mark.parametrize("held", ["inference:invoke", "inference:*", "*"])
def test_a_scope_is_held_exactly_or_by_a_wildcard(held: str) -> None:
    authorise(principal(held, "models:read"), "inference:invoke")


@pytest.mark.parametrize("held", ["", "inference:read", "embeddings:*", "inference", ":*"])
def test_another_scope_does_not_help(held: str) -> None:
    with pytest.raises(ScopeMissing) as caught:
        authorise(principal(held), "inference:invoke")
    assert caught.value.metadata == {"scope": "inference:invoke"}


def test_a_method_without_a_scope_is_served_to_nobody() -> None:
    with pytest.raises(ScopeMissing):
        authorise(principal("*"), "")
