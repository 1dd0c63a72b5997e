"""Programs written for Triton work through the gateway, with a key in their metadata."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.api.embeddings.v1 import embeddings_pb2_grpc
from penstock.service.local.cluster import LocalCluster
from tests.conftest import Credentials, MakeKey
from tests.e2e.refusals import INTERNALS

TEXTS = ["A dog runs in the park.", "The bank raised its rates."]


@pytest.fixture
def headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"}


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(cluster.endpoint) as connected:
        yield connected


@pytest.fixture
async def aio_client(cluster: LocalCluster) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(cluster.endpoint) as connected:
        yield connected


def bytes_input(name: str, values: list[str], shape: list[int]) -> triton.InferInput:
    tensor = triton.InferInput(name, shape, "BYTES")
    data = np.array([value.encode() for value in values], dtype=np.object_).reshape(shape)
    return tensor.set_data_from_numpy(data)


def test_a_synchronous_program_looks_around(
    client: triton.InferenceServerClient, headers: dict[str, str]
) -> None:
    assert client.is_server_live(headers)
    assert client.is_server_ready(headers)
    assert client.get_server_metadata(headers).name == "penstock"
    assert client.is_model_ready("minilm", headers=headers)
    assert not client.is_model_ready("nope", headers=headers)
    found = client.get_model_metadata("minilm", headers=headers)
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [
        ("text", "BYTES", [-1, 1])
    ]
    assert ("embedding", "FP32", [-1, 384]) in [
        (t.name, t.datatype, list(t.shape)) for t in found.outputs
    ]


async def test_both_protocols_give_the_same_vectors(
    client: triton.InferenceServerClient,
    channel: Any,
    headers: dict[str, str],
    credentials: Credentials,
) -> None:
    result = await asyncio.to_thread(
        client.infer,
        "minilm",
        [bytes_input("text", TEXTS, [2, 1])],
        request_id="seven",
        outputs=[triton.InferRequestedOutput("embedding")],
        headers=headers,
        priority=2,
        client_timeout=30.0,
    )
    response = result.get_response()
    assert (response.id, response.model_name) == ("seven", "minilm")
    assert [output.name for output in response.outputs] == ["embedding"]
    embedded = await embeddings_pb2_grpc.EmbeddingsServiceStub(channel).Embed(
        pb.EmbedRequest(model="minilm", texts=TEXTS), metadata=credentials
    )
    ours = np.array([list(one.values) for one in embedded.embeddings])
    np.testing.assert_allclose(result.as_numpy("embedding"), ours, atol=1e-4)


async def test_an_asynchronous_program_runs_many_calls_at_once(
    aio_client: triton_aio.InferenceServerClient, headers: dict[str, str]
) -> None:
    features = triton.InferInput("features", [3, 10], "FP32")
    features.set_data_from_numpy(np.full((3, 10), 0.01, dtype=np.float32))
    results = await asyncio.gather(
        *[aio_client.infer("diabetes", [features], headers=headers) for _ in range(32)]
    )
    values = [result.as_numpy("value") for result in results]
    assert values[0].shape == (3, 1)
    assert all(np.array_equal(value, values[0]) for value in values)


async def test_an_asynchronous_program_streams_a_story(
    aio_client: triton_aio.InferenceServerClient, headers: dict[str, str]
) -> None:
    sampling = json.dumps({"max_tokens": 12, "temperature": 0})

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name in ("a", "b"):
            yield {
                "model_name": "storyteller",
                "inputs": [
                    bytes_input("text_input", ["Once upon a time"], [1]),
                    bytes_input("sampling_parameters", [sampling], [1]),
                ],
                "request_id": name,
            }

    told: dict[str, list[str]] = {"a": [], "b": []}
    finished = []
    async for result, error in aio_client.stream_infer(requests(), headers=headers):
        assert error is None
        response = result.get_response()
        told[response.id].append(result.as_numpy("text_output")[0].decode())
        if response.parameters["triton_final_response"].bool_param:
            finished.append(response.id)
    assert finished == ["a", "b"]
    assert "".join(told["a"]) == "".join(told["b"]) != ""
    assert len(told["a"]) > 1


def test_a_synchronous_stream_answers_in_order_and_survives_a_bad_request(
    client: triton.InferenceServerClient, headers: dict[str, str]
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    for number in range(6):
        text = "" if number == 3 else f"text {number}"
        tensor = bytes_input("text", [text], [1, 1])
        client.async_stream_infer("minilm", [tensor], request_id=str(number))
    seen = [answers.get(timeout=30) for _ in range(6)]
    client.stop_stream()
    names = [None if error else result.get_response().id for result, error in seen]
    assert names == ["0", "1", "2", None, "4", "5"]
    assert "text[0]: is empty" in str(seen[3][1])


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [
        ("nope", "", "StatusCode.NOT_FOUND"),
        ("minilm", "99", "StatusCode.NOT_FOUND"),
        ("fraud", "", "StatusCode.INVALID_ARGUMENT"),
        ("storyteller", "", "StatusCode.FAILED_PRECONDITION"),
    ],
)
def test_refusals_are_ours(
    client: triton.InferenceServerClient,
    headers: dict[str, str],
    model: str,
    version: str,
    code: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(
            model,
            [bytes_input("text", ["x"], [1, 1])],
            model_version=version,
            headers=headers,
        )
    assert caught.value.status() == code
    assert not INTERNALS.search(caught.value.message())


def test_the_same_key_rules_hold(client: triton.InferenceServerClient, make_key: MakeKey) -> None:
    inputs = [bytes_input("text", ["x"], [1, 1])]
    with pytest.raises(InferenceServerException) as caught:
        client.infer("minilm", inputs)
    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    narrow = {"authorization": f"Bearer {make_key('models:read', models=('fraud',))}"}
    with pytest.raises(InferenceServerException) as caught:
        client.infer("minilm", inputs, headers=narrow)
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
    assert not client.is_model_ready("minilm", headers=narrow)
    with pytest.raises(InferenceServerException) as caught:
        client.unload_model("minilm", headers=narrow)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
