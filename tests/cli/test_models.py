"""models list, get and versions."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from penstock.api.models.v1 import models_pb2 as models
from tests.cli.conftest import Run
from tests.client.scripted import Scripted


@pytest.fixture(autouse=True)
def fraud(scripted: Scripted) -> None:
    model = models.Model(
        name="fraud", task="tabular-classification", state=models.MODEL_STATE_READY
    )
    model.traffic.add(version="1", weight=3)
    model.traffic.add(version="2", weight=1)
    model.traffic.add(version="3", shadow=True)
    model.signature.labels.extend(["fine", "fraud"])
    model.signature.features.add(name="channel", categories=["web", "app"])
    model.signature.features.add(name="km", optional=True)
    version = models.ModelVersion(version="1", digest="sha256:abc", ready_replicas=2)
    version.create_time.FromSeconds(0)
    answers: dict[str, Any] = {
        "ListModels": models.ListModelsResponse(models=[model]),
        "GetModel": models.GetModelResponse(model=model),
        "ListVersions": models.ListVersionsResponse(versions=[version]),
    }
    for method, answer in answers.items():
        scripted.behaviours[method] = partial(_given, answer)


def _given(answer: Any, *_: object) -> Any:
    return answer


def test_models_are_listed_with_their_traffic(run: Run) -> None:
    result = run("models", "list")
    assert "tabular-classification" in result.stdout
    assert "ready" in result.stdout
    assert "1: 75%, 2: 25%, 3: shadow" in result.stdout
    assert json.loads(run("models", "list", "--json").stdout)["models"][0]["name"] == "fraud"


def test_one_model_is_described(run: Run) -> None:
    result = run("models", "get", "fraud")
    assert "channel: one of web, app" in result.stdout
    assert "km: a number, may be absent" in result.stdout
    assert "dimensions" not in result.stdout
    described = json.loads(run("models", "get", "fraud", "--json").stdout)
    assert described["signature"]["labels"] == ["fine", "fraud"]


def test_versions_are_listed(run: Run) -> None:
    result = run("models", "versions", "fraud")
    assert "sha256:abc" in result.stdout
    assert "1970-01-01 00:00:00" in result.stdout
    versions = json.loads(run("models", "versions", "fraud", "--json").stdout)["versions"]
    assert versions[0]["ready_replicas"] == 2
