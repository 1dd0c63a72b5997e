"""The SDK and its examples against the whole cluster: every family, waiting and awaiting."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from penstock import AsyncClient, Client, errors
from penstock.service.local.cluster import LocalCluster
from tests.conftest import MakeKey
from workers.demo_models.shape_scenes import draw_scene

ROOT = Path(__file__).resolve().parents[2]
PAYMENT = {
    "amount": 24.9,
    "hour": 14,
    "channel": "web",
    "merchant": "grocery",
    "account_age_days": 900,
    "payments_last_hour": 0,
    "new_device": False,
}


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(f"http://{cluster.endpoint}", cluster.api_key) as client:
        yield client


@pytest.fixture
async def async_client(cluster: LocalCluster) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"http://{cluster.endpoint}", cluster.api_key) as client:
        yield client


def test_texts_become_labels_spans_and_vectors(client: Client) -> None:
    ranked = client.classify("support-intent", "Where is my parcel?", top_k=2)
    assert [len(result.labels) for result in ranked] == [2]
    assert ranked.metadata.model == "support-intent"
    sentence = "Anna Schmidt flew from Berlin to Lisbon."
    for entity in client.extract_entities("entities", sentence)[0]:
        assert sentence[entity.start : entity.end] == entity.text
    vectors = client.embed("minilm", ["a refund", "money back"])
    assert len(vectors[0]) == 384
    assert math.isclose(sum(x * x for x in vectors[0]), 1.0, rel_tol=1e-4)


def test_rows_become_scores(client: Client) -> None:
    (scored,) = client.predict("fraud", PAYMENT)
    assert scored.label == "honest"
    assert math.isclose(sum(scored.probabilities.values()), 1.0, rel_tol=1e-4)
    with pytest.raises(errors.InvalidArgument) as caught:
        client.predict("fraud", PAYMENT | {"channel": "fax"})
    assert "channel" in caught.value.violations[0].field
    assert caught.value.request_id


def test_models_are_listed_and_described(client: Client) -> None:
    names = [model.name for model in client.models.list()]
    assert names == sorted(names)
    assert {"fraud", "minilm", "storyteller"} <= set(names)
    assert client.models.get("minilm").signature.dimensions == 384
    assert client.models.versions("fraud")[0].digest.startswith("sha256:")


async def test_many_calls_run_at_once(async_client: AsyncClient) -> None:
    answers = await asyncio.gather(*(async_client.predict("fraud", PAYMENT) for _ in range(50)))
    assert {answer[0].label for answer in answers} == {"honest"}
    assert len({answer.metadata.request_id for answer in answers}) == 50


async def test_text_streams_and_an_early_leave_leaves_the_model_free(
    async_client: AsyncClient,
) -> None:
    async for piece in async_client.generate("storyteller", "Once upon a time", max_tokens=200):
        assert piece
        break
    stream = async_client.generate("storyteller", "Once upon a time", max_tokens=5, seed=1)
    pieces = [piece async for piece in stream]
    whole = await stream.result()
    assert "".join(pieces) == whole.text
    assert whole.metadata.usage.output_units <= 5


async def test_groups_of_texts_stream_both_ways(async_client: AsyncClient) -> None:
    groups = [(str(number), [f"passage {number}", "another"]) for number in range(6)]
    stream = async_client.embed_stream("minilm", groups)
    answered = {group.group_id: len(group.embeddings) async for group in stream}
    assert answered == {str(number): 2 for number in range(6)}
    assert (await stream.result()).usage.input_units > 0


def test_a_limit_is_an_error_that_says_when_to_come_back(
    cluster: LocalCluster, make_key: MakeKey
) -> None:
    key = make_key("models:read", requests_per_minute=1)
    with Client(f"http://{cluster.endpoint}", key) as client:
        client.models.get("fraud")
        with pytest.raises(errors.RateLimited) as caught:
            client.models.get("fraud")
        assert (caught.value.retry_after_seconds or 0) > 0
        with pytest.raises(errors.ScopeMissing):
            client.predict("fraud", PAYMENT)


def ran(cluster: LocalCluster, tmp_path: Path, *command: str) -> str:
    """What a program prints, configured as `penstock up` does it."""
    config = tmp_path / "config.json"
    stored = {"endpoint": cluster.endpoint, "api_key": cluster.api_key, "tls": False}
    config.write_text(json.dumps(stored))
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PENSTOCK_CONFIG": str(config), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ("support_intent.py", "order-status"),
        ("fraud_check.py", "hold"),
        ("semantic_search.py", "Refunds"),
    ],
)
def test_an_example_does_what_it_says(
    cluster: LocalCluster, tmp_path: Path, example: str, says: str
) -> None:
    assert says in ran(cluster, tmp_path, f"examples/{example}")


def test_the_camera_example_finds_what_is_on_its_pictures(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    drawn = {}
    for seed in range(6):
        path = tmp_path / f"{seed}.png"
        scene = draw_scene(random.Random(seed), side=192)
        scene.picture.save(path)
        drawn[str(path)] = {shape.label for shape in scene.shapes}
    said = ran(cluster, tmp_path, "examples/image_check.py", *drawn)
    assert said.count("(192x192)") == len(drawn)
    told = {line.split(" ", 1)[0]: line for line in said.splitlines()}
    right = [path for path, labels in drawn.items() if any(label in told[path] for label in labels)]
    assert len(right) >= 4, said


def test_the_command_shows_tokens_and_tables(cluster: LocalCluster, tmp_path: Path) -> None:
    command = ("-c", "from penstock.cli.main import main; main()")
    listed = ran(cluster, tmp_path, *command, "models", "list")
    assert "storyteller" in listed
    told = ran(cluster, tmp_path, *command, "generate", "storyteller", "Once", "--max-tokens", "5")
    assert told.strip()
    assert told.endswith("\n")
