"""The registry: every change whole, whoever else writes; replicas seen only while alive."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from penstock.errors import (
    InvalidArgument,
    ModelNotFound,
    VersionExists,
    VersionInUse,
    VersionNotFound,
)
from penstock.service import keys
from penstock.service.packages import ModelSpec
from penstock.service.registry import (
    ModelRecord,
    ModelRegistry,
    ReplicaRecord,
    ReplicaRegistry,
    ServedModel,
    TrafficShare,
)
from tests.service.conftest import SPEC


@pytest.fixture
def models(redis: Redis) -> ModelRegistry:
    return ModelRegistry(redis)


@pytest.fixture
def replicas(redis: Redis) -> ReplicaRegistry:
    return ReplicaRegistry(redis)


def version(number: int | str, name: str = "mini") -> ModelSpec:
    return SPEC.model_copy(update={"name": name, "version": str(number)})


async def register(models: ModelRegistry, number: int | str, **options: bool) -> ModelRecord:
    return await models.register(
        f"file:///{number}", f"sha256:{number}", version(number), **options
    )


def traffic(record: ModelRecord) -> dict[str, int]:
    return {share.version: share.weight for share in record.traffic}


async def test_the_first_version_takes_all_traffic_and_the_next_none(
    models: ModelRegistry,
) -> None:
    await register(models, 1)
    record = await register(models, 2)
    assert traffic(record) == {"1": 100}
    assert set(record.versions) == {"1", "2"}
    assert await models.models() == {"mini": record}


async def test_a_version_may_take_the_traffic_when_it_comes(models: ModelRegistry) -> None:
    await register(models, 1)
    assert traffic(await register(models, 2, take_traffic=True)) == {"2": 100}


async def test_versions_registered_at_once_are_all_kept(redis: Redis) -> None:
    async def one(number: int) -> None:
        registry = ModelRegistry(redis)
        await registry.register("file:///m", f"sha256:{number}", version(number))
        await registry.register("file:///n", f"sha256:{number}", version(1, f"other-{number}"))

    await asyncio.gather(*(one(number) for number in range(25)))
    found = await ModelRegistry(redis).models()
    assert set(found["mini"].versions) == {str(number) for number in range(25)}
    assert len(found) == 26
    assert len(found["mini"].traffic) == 1


async def test_registering_the_same_package_again_changes_nothing(models: ModelRegistry) -> None:
    record = await register(models, 1)
    assert await register(models, 1) == record


async def test_a_version_never_becomes_another_package(models: ModelRegistry) -> None:
    before = await register(models, 1)
    with pytest.raises(VersionExists):
        await models.register("file:///evil", "sha256:other", version(1))
    assert (await models.models())["mini"] == before


async def test_a_version_that_takes_traffic_is_not_retired(models: ModelRegistry) -> None:
    await register(models, 1)
    await register(models, 2)
    with pytest.raises(VersionInUse):
        await models.retire("mini", "1")


async def test_an_idle_version_is_retired_and_can_come_back(models: ModelRegistry) -> None:
    await register(models, 1)
    await register(models, 2, take_traffic=True)
    retired = await models.retire("mini", "1")
    assert retired.versions["1"].state == "retired"
    again = await register(models, 1)
    assert again.versions["1"].state == "wanted"
    assert traffic(again) == {"2": 100}


async def test_the_last_version_may_go(models: ModelRegistry) -> None:
    await register(models, 1)
    record = await models.retire("mini", "1")
    assert record.traffic == ()
    assert traffic(await register(models, 2)) == {"2": 100}


async def test_traffic_is_shared_among_versions(models: ModelRegistry) -> None:
    await register(models, 1)
    await register(models, 2)
    shares = [TrafficShare(version="1", weight=9), TrafficShare(version="2", weight=1)]
    assert traffic(await models.set_traffic("mini", shares)) == {"1": 9, "2": 1}


async def test_traffic_goes_only_to_versions_that_are_wanted(models: ModelRegistry) -> None:
    await register(models, 1)
    await register(models, 2, take_traffic=True)
    await models.retire("mini", "1")
    for unknown in ("1", "3"):
        with pytest.raises(VersionNotFound):
            await models.set_traffic("mini", [TrafficShare(version=unknown, weight=1)])


@pytest.mark.parametrize("weights", [[], [("1", 0)], [("1", 1), ("1", 2)]])
async def test_traffic_that_reaches_nobody_or_counts_twice_is_refused(
    models: ModelRegistry, weights: list[tuple[str, int]]
) -> None:
    await register(models, 1)
    with pytest.raises(InvalidArgument):
        await models.set_traffic("mini", [TrafficShare(version=v, weight=w) for v, w in weights])


async def test_what_is_not_registered_is_not_found(models: ModelRegistry) -> None:
    with pytest.raises(ModelNotFound):
        await models.retire("mini", "1")
    with pytest.raises(ModelNotFound):
        await models.set_traffic("mini", [TrafficShare(version="1", weight=1)])
    await register(models, 1)
    with pytest.raises(VersionNotFound):
        await models.retire("mini", "2")


async def test_a_record_that_cannot_be_read_hides_no_other(
    models: ModelRegistry, redis: Redis
) -> None:
    record = await register(models, 1)
    await redis.hset(keys.MODELS, "broken", "{}")
    assert await models.models() == {"mini": record}


REPLICA = ReplicaRecord(
    id="one",
    endpoint="127.0.0.1:1",
    region="here",
    models=(
        ServedModel(name="mini", version="1", triton_name="mini--1", instances=1, max_batch=8),
    ),
)


async def test_a_replica_is_seen_from_its_announcement_to_its_withdrawal(
    replicas: ReplicaRegistry,
) -> None:
    other = REPLICA.model_copy(update={"id": "two"})
    await replicas.announce(REPLICA)
    await replicas.announce(other)
    assert await replicas.replicas() == [REPLICA, other]
    await replicas.withdraw("one")
    assert await replicas.replicas() == [other]


async def test_a_replica_that_falls_silent_is_forgotten(
    replicas: ReplicaRegistry, redis: Redis
) -> None:
    await replicas.announce(REPLICA)
    assert 0 < await redis.pttl(keys.replica("one")) <= 6000
    await redis.pexpire(keys.replica("one"), 1)
    give_up = time.monotonic() + 5
    while await replicas.replicas() and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    assert await replicas.replicas() == []
    assert await redis.scard(keys.REPLICAS) == 0


async def test_sweeping_never_hides_a_replica_that_came_back(
    replicas: ReplicaRegistry, redis: Redis
) -> None:
    async def flicker() -> None:
        for _ in range(100):
            await redis.delete(keys.replica("one"))
            await replicas.announce(REPLICA)

    async def read() -> None:
        for _ in range(100):
            await replicas.replicas()

    await asyncio.gather(flicker(), read(), read())
    assert await replicas.replicas() == [REPLICA]


async def test_a_failure_is_told_until_it_is_cleared(replicas: ReplicaRegistry) -> None:
    await replicas.fail("ft:base:acme", "1", "no such package")
    await replicas.fail("mini", "2", "too large")
    assert await replicas.failures() == {
        ("ft:base:acme", "1"): "no such package",
        ("mini", "2"): "too large",
    }
    await replicas.clear_failure("ft:base:acme", "1")
    assert await replicas.failures() == {("mini", "2"): "too large"}
