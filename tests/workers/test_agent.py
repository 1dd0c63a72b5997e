"""The agent and a real Triton: what is registered is served, whatever dies."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.service import keys
from penstock.service.redis import connect
from penstock.service.registry import ModelRegistry
from tests.workers.station import Station, until


@pytest.fixture(scope="module", autouse=True)
async def _bystander(station: Station) -> None:
    """A model that is there before each test and must be there after."""
    await station.serve("bystander")


@asynccontextmanager
async def uninterrupted(station: Station, name: str) -> AsyncIterator[list[float]]:
    """Calls a model without pause; any failure fails the test."""
    answers: list[float] = []

    async def call() -> None:
        while True:
            answers.append(float((await station.scores(name))[0, 1]))

    calls = asyncio.create_task(call())
    yield answers
    assert not calls.done(), calls.exception()
    calls.cancel()
    await asyncio.gather(calls, return_exceptions=True)


async def test_a_registered_version_is_announced_once_it_answers(station: Station) -> None:
    await station.serve("fresh", gain=0.5)
    scores = await station.scores("fresh")
    expected = np.exp([-0.3, 0.3]) / np.exp([-0.3, 0.3]).sum()
    np.testing.assert_allclose(scores, [expected], rtol=1e-5)
    (record,) = await station.replicas.replicas()
    (served,) = (model for model in record.models if model.name == "fresh")
    assert (record.id, record.region, record.endpoint) == ("station", "here", station.endpoint)
    assert (served.triton_name, served.instances, served.max_batch) == ("fresh--1", 1, 16)


async def test_a_new_version_comes_and_the_old_one_goes_while_others_answer(
    station: Station,
) -> None:
    await station.serve("swapped", "1", gain=1.0)
    async with uninterrupted(station, "bystander") as answers:
        await station.serve("swapped", "2", gain=2.0)
        assert await station.announces("swapped", "1")
        await station.models.retire("swapped", "1")
        await until(lambda: not_(station.announces("swapped", "1")))
        assert "swapped--1" in await station.loaded(), "unloaded before gateways could know"
        await until(lambda: not_in("swapped--1", station))
    assert len(answers) > 10
    assert (await station.scores("swapped", "2"))[0, 1] > 0.7
    await until(lambda: entry_gone(station, "swapped--1"))
    await until(lambda: cached_are(station, 1, "swapped"))


async def test_a_model_whose_process_is_killed_is_back_soon(station: Station) -> None:
    await station.serve("fragile")
    before = station.model_process("fragile")
    assert before is not None
    async with uninterrupted(station, "bystander"):
        before.kill()
        await until(lambda: answers_with_another_process(station, "fragile", before.pid))
        await until(lambda: station.announces("fragile"))
    assert station.events("no longer ready", "fragile")


async def test_one_dead_instance_of_two_is_found_though_the_other_answers(
    station: Station,
) -> None:
    await station.serve("twins", instances=2)
    before = station.model_processes("twins")
    assert len(before) == 2

    async def call() -> None:
        while True:
            await asyncio.gather(
                *(station.scores("twins") for _ in range(4)), return_exceptions=True
            )

    calls = asyncio.create_task(call())
    before[0].kill()

    async def both_are_new() -> bool:
        return len(set(station.model_processes("twins")) - set(before)) == 2

    await until(both_are_new)
    await until(lambda: station.announces("twins"))
    calls.cancel()
    for _ in range(6):
        await station.scores("twins")


async def test_everything_is_back_after_triton_is_killed(station: Station) -> None:
    await station.serve("survivor")
    server = station.server()
    assert server is not None
    children = server.children()
    assert children
    announced = await station.announced()
    server.kill()
    await until(lambda: not_(station.announces("survivor")))
    await until(lambda: equal(station.announced(), announced))
    for name in ("survivor", "bystander"):
        assert (await station.scores(name)).shape == (1, 2)
    assert not any(child.is_running() and child.status() != "zombie" for child in children)


async def test_a_package_that_changed_is_refused_until_it_is_put_right(station: Station) -> None:
    spec, digest = station.package("tampered")
    weights = station.folder / "artifacts" / "tampered" / "1" / "model.onnx"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"!")
    await station.register(spec, digest)
    await until(lambda: failure(station, "tampered"))
    assert await failure(station, "tampered") == (
        "model.onnx has changed since the package was made"
    )
    assert "tampered--1" not in await station.loaded()
    assert (await station.scores("bystander")).shape == (1, 2)
    weights.write_bytes(good)
    await until(lambda: station.announces("tampered"))
    await until(lambda: not_(failure(station, "tampered")))


async def test_a_model_that_cannot_be_loaded_stops_no_other(station: Station) -> None:
    spec, _ = station.package("broken")
    directory = station.folder / "artifacts" / "broken" / "1"
    (directory / "model.onnx").write_bytes(b"this is no model")
    from penstock.service.packages import write_package

    await station.register(spec, write_package(directory, spec))
    await until(lambda: failure(station, "broken"))
    reason = await failure(station, "broken")
    assert reason is not None
    assert str(station.folder) not in reason, "the reason shows the server's insides"
    await station.serve("after-broken")
    await station.models.retire("broken", "1")
    await until(lambda: not_(failure(station, "broken")))


async def test_a_spec_that_is_not_the_packages_own_is_refused(station: Station) -> None:
    spec, digest = station.package("mislabelled")
    lie = spec.model_copy(update={"labels": ("large", "small")})
    await station.register(lie, digest)
    await until(lambda: failure(station, "mislabelled"))
    assert not await station.announces("mislabelled")
    await station.models.retire("mislabelled", "1")


async def test_a_redis_that_forgot_everything_is_told_again(station: Station) -> None:
    before = await station.announced()
    await station.soft.flushdb()
    await until(lambda: equal(station.announced(), before), seconds=5)


async def test_without_the_control_redis_everything_keeps_serving(station: Station) -> None:
    control = connect(station.control.url())
    # Pausing refuses to answer, as a Redis behind a broken network does.
    await control.execute_command("CLIENT", "PAUSE", "3000", "ALL")  # type: ignore[no-untyped-call]
    await until(lambda: unreachable(station.control.url()))
    async with uninterrupted(station, "bystander"):
        await until(lambda: reachable(control))
        assert await station.announces("bystander")
    await station.serve("after-outage")
    await control.aclose()


async def test_a_registry_that_lost_everything_unloads_nothing(station: Station) -> None:
    saved: Any = await station.wanted.hgetall(keys.MODELS)
    announced = await station.announced()
    assert announced
    await station.wanted.delete(keys.MODELS)
    await until(lambda: logged(station, "registry is empty; keeping what is loaded"))
    assert await station.announced() == announced
    await station.wanted.hset(keys.MODELS, mapping=saved)
    await station.serve("after-loss")
    assert announced < await station.announced()


async def test_sigterm_withdraws_first_and_the_next_agent_takes_over(station: Station) -> None:
    await station.serve("heirloom")
    process = station.model_process("heirloom")
    assert process is not None
    async with uninterrupted(station, "heirloom"):
        station.agent.send_signal(signal.SIGTERM)
        await until(lambda: not_(station.soft.exists(keys.replica("station"))))
        assert station.agent.poll() is None, "gone before what it had been sent was answered"
        assert await asyncio.to_thread(station.agent.wait, 10) == 0
        station.agent = station.start("workers")
        await until(lambda: station.announces("heirloom"))
    heir = station.model_process("heirloom")
    assert heir == process, "the model was loaded again although it was there"


async def test_an_agent_that_is_killed_leaves_strays_to_the_next(station: Station) -> None:
    await station.serve("stray")
    station.agent.kill()
    await asyncio.to_thread(station.agent.wait)
    await station.models.retire("stray", "1")
    (station.folder / "repository" / "left-over").mkdir()
    (station.folder / "cache" / ("0" * 64)).mkdir()
    station.agent = station.start("workers")
    await until(lambda: not_in("stray--1", station))
    await until(lambda: station.announces("bystander"))
    await until(lambda: entry_gone(station, "stray--1"))
    await until(lambda: entry_gone(station, "left-over"))
    assert not (station.folder / "cache" / ("0" * 64)).exists()


async def not_(condition: Any) -> bool:
    return not await condition


async def equal(found: Any, expected: object) -> bool:
    return bool(await found == expected)


async def not_in(name: str, station: Station) -> bool:
    return name not in await station.loaded()


async def failure(station: Station, name: str, version: str = "1") -> str | None:
    return (await station.replicas.failures()).get((name, version))


async def cached_are(station: Station, count: int, name: str) -> bool:
    models = (await station.models.models())[name]
    digests = {record.digest.removeprefix("sha256:") for record in models.versions.values()}
    return sum((station.folder / "cache" / digest).exists() for digest in digests) == count


async def answers_with_another_process(station: Station, name: str, pid: int) -> bool:
    process = station.model_process(name)
    if process is None or process.pid == pid or not psutil.pid_exists(process.pid):
        return False
    try:
        return (await station.scores(name)).shape == (1, 2)
    except Exception:
        return False


async def reachable(redis: Redis) -> bool:
    try:
        return bool(await redis.ping())
    except RedisError:
        return False


async def unreachable(url: str) -> bool:
    client = connect(url, timeout_seconds=0.2)
    started = time.monotonic()
    try:
        await ModelRegistry(client).models()
    except RedisError:
        return time.monotonic() - started < 5
    finally:
        await client.aclose()
    return False


async def entry_gone(station: Station, name: str) -> bool:
    return not await asyncio.to_thread((station.folder / "repository" / name).exists)


async def logged(station: Station, event: str) -> bool:
    return f'"{event}"' in await asyncio.to_thread((station.folder / "workers.log").read_text)
