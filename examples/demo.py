"""What `make demo` runs: a private cluster, one call to every model, and the answers in print."""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console
from sklearn.datasets import load_diabetes, load_digits

from penstock.api.types.v1.metadata_pb2 import ResponseMetadata, UsageUnit
from penstock.client import Client
from penstock.errors import PenstockError
from penstock.service.local.building import BuildFailed
from penstock.service.local.cluster import ClusterFailed, ClusterOptions, LocalCluster
from penstock.service.local.redis_server import RedisMissing
from penstock.service.local.state import DEFAULT_STATE_DIR
from workers.demo_models.shape_scenes import draw_scene

console = Console(highlight=False, soft_wrap=True)

TICKETS = (
    "Where is my parcel? It should have come on Monday.",
    "You charged my card twice for the same order.",
    "I cannot log in any more, the password is always wrong.",
)
SENTENCES = (
    "Anna Schmidt flew from Berlin to Lisbon on Friday.",
    "Please send the invoice for the headphones to Tom Baker in Dublin.",
)
PAYMENT = {
    "amount": 24.9,
    "hour": 14,
    "channel": "card-present",
    "merchant": "grocery",
    "account_age_days": 1900,
    "payments_last_hour": 0,
    "new_device": False,
    "distance_km": 3,
}
SUSPICIOUS = PAYMENT | {
    "amount": 890,
    "hour": 3,
    "channel": "web",
    "merchant": "electronics",
    "account_age_days": 6,
    "payments_last_hour": 4,
    "new_device": True,
    "distance_km": None,
}
PASSAGES = (
    "Refunds are paid to the card you used within five days.",
    "Short wavelengths of sunlight scatter more in the atmosphere.",
    "Departures to the city are every half hour from platform 2.",
)
QUESTION = "How do I get my money back?"
PROMPT = "This module provides"


def intents(client: Client) -> ResponseMetadata:
    """Texts to ranked labels."""
    results = client.classify("support-intent", TICKETS)
    for text, result in zip(TICKETS, results, strict=True):
        say(text, f"{result.label} ({result.confidence:.0%})")
    return results.metadata


def entities(client: Client) -> ResponseMetadata:
    """Texts to labelled spans."""
    results = client.extract_entities("entities", SENTENCES)
    for text, found in zip(SENTENCES, results, strict=True):
        say(text, ", ".join(f"{entity.text} = {entity.label}" for entity in found) or "nothing")
    return results.metadata


def fraud(client: Client) -> ResponseMetadata:
    """Rows of named features to a label with its probability."""
    results = client.predict("fraud", [PAYMENT, SUSPICIOUS])
    for row, result in zip((PAYMENT, SUSPICIOUS), results, strict=True):
        asked = f"{row['amount']} euros at {row['hour']} h, {row['channel']}, {row['merchant']}"
        say(asked, f"{result.label} (fraud: {result.probabilities['fraud']:.1%})")
    return results.metadata


def diabetes(client: Client) -> ResponseMetadata:
    """A matrix of numbers to values."""
    data, target = load_diabetes(return_X_y=True, scaled=False)
    results = client.predict("diabetes", data[:2].tolist())
    for row, truth, result in zip(data, target, results, strict=False):
        say(f"a patient of {row[0]:.0f}, really {truth:.0f}", f"progression {result.score:.0f}")
    return results.metadata


def digits(client: Client) -> ResponseMetadata:
    """Images to ranked labels."""
    data = load_digits()
    chosen = [0, 11, 22, 33, 44]
    pictures = [Image.fromarray((data.images[i] * 15.9).astype("uint8")) for i in chosen]
    results = client.classify("digits", images=[png(p.resize((64, 64))) for p in pictures])
    truths = " ".join(str(data.target[i]) for i in chosen)
    say(f"five pictures of {truths}", " ".join(result.label for result in results))
    return results.metadata


def scenes(client: Client) -> ResponseMetadata:
    """Images to labelled boxes."""
    scene = draw_scene(random.Random(4), side=64)  # noqa: S311 - a picture, not a secret
    results = client.detect_objects("scenes", png(scene.picture), min_score=0.5)
    drawn = ", ".join(sorted(shape.label for shape in scene.shapes))
    found = [f"{d.label} at {d.box[0]:.0f},{d.box[1]:.0f} ({d.score:.0%})" for d in results[0]]
    say(f"a picture of {drawn}", ", ".join(found) or "nothing")
    return results.metadata


def search(client: Client) -> ResponseMetadata:
    """Texts to vectors; the nearest passage answers the question."""
    vectors = client.embed("minilm", [QUESTION, *PASSAGES])
    question, *passages = vectors.numpy()
    nearness = [float(question @ passage) for passage in passages]
    best = max(range(len(PASSAGES)), key=nearness.__getitem__)
    say(QUESTION, f"{PASSAGES[best]} (cosine {nearness[best]:.2f})")
    return vectors.metadata


def story(client: Client) -> ResponseMetadata:
    """A prompt to a stream of text."""
    console.print(f"  [dim]{PROMPT}[/dim]", end="")
    with client.generate("storyteller", PROMPT, max_tokens=60, seed=1) as stream:
        for delta in stream:
            console.print(delta, end="", markup=False)
    console.print()
    return stream.result().metadata


CALLS: dict[str, Callable[[Client], ResponseMetadata]] = {
    "text classification": intents,
    "entity extraction": entities,
    "fraud score": fraud,
    "regression": diabetes,
    "image classification": digits,
    "object detection": scenes,
    "embeddings for search": search,
    "text generation": story,
}


def say(asked: str, answered: str) -> None:
    """One question and its answer."""
    console.print(f"  [dim]{asked}[/dim]")
    console.print("    -> ", end="")
    console.print(answered, markup=False)


def png(picture: Image.Image) -> bytes:
    """The picture as a file."""
    encoded = io.BytesIO()
    picture.save(encoded, format="PNG")
    return encoded.getvalue()


def call_every_model(client: Client) -> None:
    """Prints each answer with where it came from and how long it took."""
    for title, call in CALLS.items():
        console.print(f"\n[bold]{title}[/bold]")
        started = time.perf_counter()
        metadata = call(client)
        milliseconds = (time.perf_counter() - started) * 1000
        unit = UsageUnit.Name(metadata.usage.unit).removeprefix("USAGE_UNIT_").lower()
        units = metadata.usage.input_units + metadata.usage.output_units
        told = [
            f"{metadata.model} version {metadata.model_version}",
            f"{milliseconds:.1f} ms",
            f"{metadata.timing.inference.ToMicroseconds() / 1000:.1f} ms of it in the model",
            f"{units} {unit}{'s' if units != 1 else ''}",
        ]
        if metadata.HasField("confidence"):
            told.append(f"confidence {metadata.confidence:.2f}")
        console.print(f"  [cyan]{' · '.join(told)}[/cyan]")


@contextmanager
def private_cluster() -> Iterator[LocalCluster]:
    """A cluster of its own ports and state, so that it disturbs no other; gone afterwards."""
    started = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s  {line}[/dim]")

    DEFAULT_STATE_DIR.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="demo-", dir=DEFAULT_STATE_DIR) as state_dir,
        LocalCluster(ClusterOptions(state_dir=Path(state_dir)), report) as cluster,
    ):
        yield cluster


def main() -> int:
    """Runs the demo; the exit status."""
    try:
        with private_cluster() as cluster:
            with Client(cluster.endpoint, cluster.api_key, tls=False) as client:
                call_every_model(client)
            console.print()
    except (BuildFailed, ClusterFailed, RedisMissing, PenstockError) as error:
        print(error, file=sys.stderr)
        return 1
    console.print("Everything has ended. `make up` starts a cluster that stays.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
