"""What a caller can see of the models."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.services.models import ModelsService
from penstock.api.models.v1 import models_pb2 as pb
from penstock.errors import ModelNotFound
from penstock.service.registry import TrafficShare
from tests.gateway.specs import spec
from tests.gateway.stage import Stage, call_of, staged

NAMES = ["alpha", "beta", "delta", "gamma"]


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[Stage]:
    async with staged(redis_url) as ready:
        await ready.serve(
            spec("tabular-classification", name="beta", description="Scores.", license="MIT"),
            *[spec("text-classification", name=name) for name in ("alpha", "gamma", "delta")],
        )
        yield ready


async def test_models_come_by_name_in_pages(stage: Stage) -> None:
    service, seen, token = ModelsService(stage.catalog), [], ""
    while True:
        request = pb.ListModelsRequest(page_size=3, page_token=token)
        page = await service.ListModels(request, call_of())
        seen.append([model.name for model in page.models])
        token = page.next_page_token
        if not token:
            break
    assert seen == [NAMES[:3], NAMES[3:]]


async def test_a_list_can_be_of_one_task(stage: Stage) -> None:
    service = ModelsService(stage.catalog)
    request = pb.ListModelsRequest(task="tabular-classification")
    (model,) = (await service.ListModels(request, call_of())).models
    assert (model.name, model.description, model.license) == ("beta", "Scores.", "MIT")
    assert model.state == pb.MODEL_STATE_READY
    assert [(s.version, s.weight > 0) for s in model.traffic] == [("1", True)]
    assert [(f.name, list(f.categories), f.optional) for f in model.signature.features] == [
        ("amount", [], False),
        ("country", ["de", "fr", "it"], False),
        ("age", [], True),
    ]
    assert list(model.signature.labels) == ["a", "b", "c"]


async def test_a_model_that_the_key_may_not_use_looks_missing(stage: Stage) -> None:
    service, call = ModelsService(stage.catalog), call_of("alpha")
    listed = await service.ListModels(pb.ListModelsRequest(), call)
    assert [model.name for model in listed.models] == ["alpha"]
    for name in ("beta", "never-was"):
        with pytest.raises(ModelNotFound) as one:
            await service.GetModel(pb.GetModelRequest(model=name), call)
        with pytest.raises(ModelNotFound) as versions:
            await service.ListVersions(pb.ListVersionsRequest(model=name), call)
        assert str(one.value) == str(versions.value) == f"no model {name!r}"


async def test_versions_come_newest_first_with_their_states(stage: Stage) -> None:
    service, registry = ModelsService(stage.catalog), stage.registry
    for version in ("2", "3", "4"):
        fresh = spec("text-classification", name="alpha", version=version)
        await registry.register("file:///alpha", f"sha256:{version}", fresh)
    await registry.retire("alpha", "2")
    await stage.replicas.fail("alpha", "3", "out of memory")
    await stage.refresh()
    first = await service.ListVersions(
        pb.ListVersionsRequest(model="alpha", page_size=3), call_of()
    )
    rest = await service.ListVersions(
        pb.ListVersionsRequest(model="alpha", page_size=3, page_token=first.next_page_token),
        call_of(),
    )
    assert not rest.next_page_token
    versions = [*first.versions, *rest.versions]
    assert [(v.version, v.state, v.ready_replicas) for v in versions] == [
        ("4", pb.MODEL_STATE_LOADING, 0),
        ("3", pb.MODEL_STATE_FAILED, 0),
        ("2", pb.MODEL_STATE_RETIRED, 0),
        ("1", pb.MODEL_STATE_READY, 1),
    ]
    assert versions[0].digest == "sha256:4"
    assert versions[0].create_time.seconds > 1_700_000_000


async def test_a_models_state_is_the_best_of_those_that_take_traffic(stage: Stage) -> None:
    service, registry = ModelsService(stage.catalog), stage.registry
    fresh = spec("text-classification", name="alpha", version="2")
    await registry.register("file:///alpha", "sha256:2", fresh)

    async def state() -> pb.ModelState.ValueType:
        await stage.refresh()
        answer = await service.GetModel(pb.GetModelRequest(model="alpha"), call_of())
        return answer.model.state

    await registry.set_traffic("alpha", [TrafficShare(version="2", weight=1)])
    assert await state() == pb.MODEL_STATE_LOADING
    await stage.replicas.fail("alpha", "2", "out of memory")
    assert await state() == pb.MODEL_STATE_FAILED
    shares = [TrafficShare(version="1", weight=1), TrafficShare(version="2", weight=1)]
    await registry.set_traffic("alpha", shares)
    assert await state() == pb.MODEL_STATE_READY


async def test_a_model_without_versions_left_is_gone(stage: Stage) -> None:
    service = ModelsService(stage.catalog)
    await stage.registry.retire("alpha", "1")
    await stage.refresh()
    listed = await service.ListModels(pb.ListModelsRequest(), call_of())
    assert [model.name for model in listed.models] == NAMES[1:]
    with pytest.raises(ModelNotFound):
        await service.GetModel(pb.GetModelRequest(model="alpha"), call_of())
