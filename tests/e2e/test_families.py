"""Every family answers through the whole cluster, with what its model is known to know."""

from __future__ import annotations

import io
import math
import random
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits

from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.types.v1 import content_pb2, metadata_pb2
from tests.conftest import Credentials
from workers.demo_models.shape_scenes import draw_scene

if TYPE_CHECKING:
    from penstock.api.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceAsyncStub
    from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

HONEST: dict[str, float | str] = {
    "amount": 25.0,
    "hour": 14.0,
    "channel": "card-present",
    "merchant": "grocery",
    "account_age_days": 2000.0,
    "payments_last_hour": 0.0,
    "new_device": 0.0,
    "distance_km": 2.0,
}
FRAUDULENT: dict[str, float | str] = HONEST | {
    "amount": 900.0,
    "hour": 3.0,
    "channel": "web",
    "merchant": "electronics",
    "account_age_days": 5.0,
    "payments_last_hour": 5.0,
    "new_device": 1.0,
    "distance_km": 4000.0,
}


def feature_row(values: dict[str, float | str]) -> inference_pb2.FeatureRow:
    """A row as callers name it."""
    return inference_pb2.FeatureRow(
        features={
            name: inference_pb2.FeatureValue(category=value)
            if isinstance(value, str)
            else inference_pb2.FeatureValue(number=value)
            for name, value in values.items()
        }
    )


def png(image: Image.Image) -> content_pb2.Image:
    """The picture as callers send it."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    return content_pb2.Image(data=encoded.getvalue(), media_type="image/png")


def checked(metadata: metadata_pb2.ResponseMetadata, model: str) -> metadata_pb2.ResponseMetadata:
    """The metadata, after checking what every answer's must say."""
    assert metadata.request_id
    assert metadata.model == model
    assert metadata.model_version
    assert metadata.region == "local"
    assert metadata.replica == "local-0"
    timing = metadata.timing
    spent = timing.queue.ToNanoseconds() + timing.inference.ToNanoseconds()
    assert timing.inference.ToNanoseconds() > 0
    assert spent <= timing.total.ToNanoseconds() < 60e9
    assert metadata.usage.input_units > 0
    assert metadata.usage.unit != metadata_pb2.USAGE_UNIT_UNSPECIFIED
    return metadata


async def test_a_fraudulent_payment_scores_far_above_an_honest_one(
    inference: InferenceServiceAsyncStub, credentials: Credentials
) -> None:
    rows = inference_pb2.FeatureRows(rows=[feature_row(HONEST), feature_row(FRAUDULENT)])
    request = inference_pb2.PredictRequest(model="fraud", rows=rows)
    answer = await inference.Predict(request, metadata=credentials)
    honest, fraudulent = answer.predictions
    assert (honest.label, fraudulent.label) == ("honest", "fraud")
    assert fraudulent.score > 0.9
    assert [p.label for p in honest.probabilities] == ["honest", "fraud"]
    assert math.isclose(sum(p.probability for p in honest.probabilities), 1.0, abs_tol=1e-4)
    metadata = checked(answer.metadata, "fraud")
    assert metadata.usage.input_units == 2
    assert metadata.usage.unit == metadata_pb2.USAGE_UNIT_ROW
    assert math.isclose(metadata.confidence, min(honest.score, fraudulent.score), abs_tol=1e-5)


async def test_a_regression_predicts_from_a_matrix(
    inference: InferenceServiceAsyncStub, credentials: Credentials
) -> None:
    data, target = load_diabetes(return_X_y=True, scaled=False)
    matrix = inference_pb2.FeatureMatrix(
        rows=len(data), columns=data.shape[1], data=data.astype("<f4").tobytes()
    )
    request = inference_pb2.PredictRequest(model="diabetes", matrix=matrix)
    answer = await inference.Predict(request, metadata=credentials)
    predicted = np.array([prediction.score for prediction in answer.predictions])
    assert len(predicted) == len(target)
    assert float(np.corrcoef(predicted, target)[0, 1]) > 0.65
    assert not answer.predictions[0].label
    assert not checked(answer.metadata, "diabetes").HasField("confidence")


async def test_digits_are_read(
    inference: InferenceServiceAsyncStub, credentials: Credentials
) -> None:
    data = load_digits()
    pictures = [Image.fromarray((pixels * 15.9).astype(np.uint8)) for pixels in data.images[:20]]
    large = [picture.resize((64, 64), Image.Resampling.BICUBIC) for picture in pictures]
    request = inference_pb2.ClassifyRequest(
        model="digits", images=[png(picture) for picture in large], top_k=3
    )
    answer = await inference.Classify(request, metadata=credentials)
    read = [result.labels[0].label for result in answer.results]
    right = sum(int(label) == truth for label, truth in zip(read, data.target[:20], strict=True))
    assert right >= 18
    assert all(len(result.labels) == 3 for result in answer.results)
    first = answer.results[0].labels
    assert first[0].confidence >= first[1].confidence >= first[2].confidence
    assert checked(answer.metadata, "digits").usage.unit == metadata_pb2.USAGE_UNIT_IMAGE


async def test_tickets_are_told_apart(
    inference: InferenceServiceAsyncStub, credentials: Credentials
) -> None:
    texts = ["where is my parcel? it should be here by now", "the blender arrived broken"]
    request = inference_pb2.ClassifyRequest(model="support-intent", texts=texts)
    answer = await inference.Classify(request, metadata=credentials)
    assert [r.labels[0].label for r in answer.results] == ["order-status", "damaged-item"]
    for result in answer.results:
        assert math.isclose(sum(label.confidence for label in result.labels), 1.0, abs_tol=1e-3)
    metadata = checked(answer.metadata, "support-intent")
    assert metadata.usage.unit == metadata_pb2.USAGE_UNIT_TOKEN
    assert math.isclose(
        metadata.confidence, min(r.labels[0].confidence for r in answer.results), abs_tol=1e-5
    )


async def test_entities_are_found_where_they_are_in_the_text(
    inference: InferenceServiceAsyncStub, credentials: Credentials
) -> None:
    # Characters beyond the basic plane, so that offsets in bytes or UTF-16 units would be wrong.
    text = "\N{ROCKET} Anna Schmidt flew from Berlin to Lisbon on Friday."
    request = inference_pb2.ExtractEntitiesRequest(model="entities", texts=[text, "Nothing here."])
    answer = await inference.ExtractEntities(request, metadata=credentials)
    found = {entity.text: entity for entity in answer.results[0].entities}
    assert found["Anna Schmidt"].label == "person"
    assert found["Berlin"].label == "place"
    for entity in found.values():
        assert text[entity.start : entity.end] == entity.text
        assert 0.0 < entity.score <= 1.0
    checked(answer.metadata, "entities")


async def test_shapes_are_found_where_they_were_drawn(
    inference: InferenceServiceAsyncStub, credentials: Credentials
) -> None:
    drawn = [draw_scene(random.Random(seed), side=64) for seed in range(16)]
    request = inference_pb2.DetectObjectsRequest(
        model="scenes", images=[png(scene.picture) for scene in drawn], min_score=0.5
    )
    answer = await inference.DetectObjects(request, metadata=credentials)
    shapes = [
        (shape.label, shape.box, list(result.detections))
        for scene, result in zip(drawn, answer.results, strict=True)
        for shape in scene.shapes
    ]
    hits = sum(
        any(d.label == label and overlap(box, d.box) > 0.5 for d in detections)
        for label, box, detections in shapes
    )
    assert hits >= 0.6 * len(shapes)
    assert all((r.width, r.height) == (64, 64) for r in answer.results)
    for result in answer.results:
        scores = [detection.score for detection in result.detections]
        assert scores == sorted(scores, reverse=True)
        assert all(score >= 0.5 for score in scores)
    checked(answer.metadata, "scenes")


def overlap(drawn: tuple[float, ...], found: inference_pb2.BoundingBox) -> float:
    """Intersection over union."""
    left, top = max(drawn[0], found.x_min), max(drawn[1], found.y_min)
    right, bottom = min(drawn[2], found.x_max), min(drawn[3], found.y_max)
    shared = max(right - left, 0.0) * max(bottom - top, 0.0)
    sizes = (drawn[2] - drawn[0]) * (drawn[3] - drawn[1])
    sizes += (found.x_max - found.x_min) * (found.y_max - found.y_min)
    return shared / (sizes - shared)


async def test_texts_of_one_meaning_are_near_each_other(
    embeddings: EmbeddingsServiceAsyncStub, credentials: Credentials
) -> None:
    texts = ["A dog runs in the park.", "A puppy is playing outside.", "The bank raised its rates."]
    request = embeddings_pb2.EmbedRequest(model="minilm", texts=texts)
    answer = await embeddings.Embed(request, metadata=credentials)
    vectors = np.array([embedding.values for embedding in answer.embeddings])
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    nearness = vectors @ vectors.T
    assert nearness[0, 1] > 0.4 > 0.2 > nearness[0, 2]
    usage = checked(answer.metadata, "minilm").usage
    assert usage.unit == metadata_pb2.USAGE_UNIT_TOKEN
    assert usage.input_units == sum(embedding.tokens for embedding in answer.embeddings)


async def test_packed_vectors_are_the_same_vectors(
    embeddings: EmbeddingsServiceAsyncStub, credentials: Credentials
) -> None:
    async def embedded(
        encoding: embeddings_pb2.VectorEncoding.ValueType,
    ) -> embeddings_pb2.Embedding:
        options = embeddings_pb2.EmbedOptions(encoding=encoding)
        request = embeddings_pb2.EmbedRequest(model="minilm", texts=["same"], options=options)
        return (await embeddings.Embed(request, metadata=credentials)).embeddings[0]

    plain = await embedded(embeddings_pb2.VECTOR_ENCODING_FLOAT)
    packed = await embedded(embeddings_pb2.VECTOR_ENCODING_PACKED)
    assert not packed.values
    assert struct.unpack("<384f", packed.packed) == pytest.approx(list(plain.values), abs=1e-5)
