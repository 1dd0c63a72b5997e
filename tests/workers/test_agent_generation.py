"""The agent and a model that streams: full is not dead, and what was begun is finished."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferInput

from penstock.service.packages import package_digest
from tests.workers.runtimes.generation_server import NAME, SEQUENCES, SPEC, babbler
from tests.workers.station import Station, until


@pytest.fixture(scope="module", autouse=True)
async def _generator(station: Station) -> None:
    directory = station.folder / "artifacts" / SPEC.name / SPEC.version
    await asyncio.to_thread(babbler, directory)
    await station.register(SPEC, package_digest(directory))
    await until(lambda: station.announces(SPEC.name), seconds=50)


async def stream(station: Station, max_tokens: int) -> int:
    """Runs one stream to its end; returns how many tokens it gave."""

    async def requests() -> Any:
        sampling = json.dumps({"max_tokens": max_tokens, "temperature": 0})
        yield {
            "model_name": NAME,
            "inputs": [text("text_input", "a"), text("sampling_parameters", sampling)],
        }

    tokens = 0
    messages = station.triton.stream_infer(requests())
    try:
        async for result, error in messages:
            assert error is None, error
            tokens = int(result.as_numpy("num_output_tokens")[0])
    finally:
        messages.cancel()
    return tokens


def text(name: str, value: str) -> InferInput:
    tensor = InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([value.encode()], dtype=object))
    return tensor


async def test_a_model_that_is_full_of_long_streams_is_not_taken_for_dead(
    station: Station,
) -> None:
    process = station.model_process(SPEC.name)
    streams = [asyncio.create_task(stream(station, 4000)) for _ in range(SEQUENCES + 2)]

    async def found_busy() -> bool:
        assert not any(task.done() for task in streams), "the streams are too short for this test"
        return bool(station.events("busy", SPEC.name))

    await until(found_busy)
    assert await station.announces(SPEC.name)
    assert station.model_process(SPEC.name) == process
    assert not station.events("no longer ready", SPEC.name)
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_a_streaming_model_whose_process_is_killed_is_back_soon(station: Station) -> None:
    process = station.model_process(SPEC.name)
    assert process is not None
    process.kill()
    await until(lambda: async_(station.events("no longer ready", SPEC.name)))
    await until(lambda: station.announces(SPEC.name), seconds=40)
    assert await stream(station, 3) == 3


async def test_a_stream_that_has_begun_is_finished_though_its_version_is_retired(
    station: Station,
) -> None:
    begun = asyncio.create_task(stream(station, 1000))
    await station.models.retire(SPEC.name, SPEC.version)
    await until(lambda: async_(station.events("unloaded", SPEC.name)))
    assert await begun == 1000


async def async_(value: object) -> object:
    return value
