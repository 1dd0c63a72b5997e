"""Python values become messages, and answers become Python values."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy
import pytest

from penstock import Client
from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.types.v1.content_pb2 import Image
from tests.client.scripted import Scripted


def scored(request: inference.PredictRequest, _: object) -> inference.PredictResponse:
    """One prediction a row."""
    count = len(request.rows.rows) or request.matrix.rows
    prediction = inference.Prediction(label="fraud", score=0.9)
    prediction.probabilities.add(label="fraud", probability=0.9)
    prediction.probabilities.add(label="fine", probability=0.1)
    return inference.PredictResponse(predictions=[prediction] * count)


def test_rows_of_features_keep_their_kinds(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Predict"] = scored
    row = {"amount": 12, "country": "de", "new": True, "age": None, "rate": numpy.float32(0.5)}
    results = client.predict("fraud", row)
    sent = scripted.requests[0].rows.rows[0].features
    assert sent["amount"].number == 12.0
    assert sent["country"].category == "de"
    assert sent["new"].WhichOneof("kind") == "flag"
    assert sent["rate"].number == 0.5
    assert "age" not in sent
    assert results[0].label == "fraud"
    assert results[0].probabilities == {"fraud": 0.9, "fine": 0.1}


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 2, 3], [4, 5, 6]],
        numpy.array([[1, 2, 3], [4, 5, 6]], dtype=numpy.float32),
        numpy.array([[1, 2, 3], [4, 5, 6]], dtype=numpy.float64),
        numpy.array([[1, 4], [2, 5], [3, 6]], dtype=numpy.float32).T,
        numpy.array([[1, 2, 3], [4, 5, 6]], dtype=numpy.int32),
    ],
    ids=["lists", "float32", "float64", "strided", "integers"],
)
def test_a_matrix_is_sent_row_after_row(client: Client, scripted: Scripted, matrix: object) -> None:
    scripted.behaviours["Predict"] = scored
    assert len(client.predict("fraud", matrix)) == 2
    sent = scripted.requests[0].matrix
    assert (sent.rows, sent.columns) == (2, 3)
    assert struct.unpack("<6f", sent.data) == (1, 2, 3, 4, 5, 6)


def test_what_is_no_feature_is_refused_here(client: Client) -> None:
    with pytest.raises(TypeError, match="'when' is a dict"):
        client.predict("fraud", {"when": {}})
    with pytest.raises(ValueError, match="one length"):
        client.predict("fraud", [[1, 2], [3]])
    with pytest.raises(ValueError, match="two dimensions"):
        client.predict("fraud", numpy.zeros(3))


def test_images_are_bytes_or_files_or_messages(
    client: Client, scripted: Scripted, tmp_path: Path
) -> None:
    def found(request: inference.DetectObjectsRequest, _: object) -> object:
        box = inference.BoundingBox(x_min=1, y_min=2, x_max=3, y_max=4)
        detection = inference.Detection(label="ship", score=0.5, box=box)
        result = inference.DetectionList(detections=[detection], width=64, height=32)
        return inference.DetectObjectsResponse(results=[result] * len(request.images))

    scripted.behaviours["DetectObjects"] = found
    path = tmp_path / "one.png"
    path.write_bytes(b"from a file")
    message = Image(data=b"from a message", media_type="image/png")
    results = client.detect_objects("scenes", [path, str(path), b"bytes", message])
    assert [image.data for image in scripted.requests[0].images] == [
        b"from a file",
        b"from a file",
        b"bytes",
        b"from a message",
    ]
    assert (results[0].width, results[0].height) == (64, 32)
    assert results[0].objects[0].box == (1, 2, 3, 4)
    assert [detection.label for detection in results[3]] == ["ship"]


def test_entities_are_spans(client: Client, scripted: Scripted) -> None:
    entity = inference.Entity(label="PLACE", text="Kiel", start=3, end=7, score=0.5)
    answer = inference.ExtractEntitiesResponse(results=[inference.EntityList(entities=[entity])])
    scripted.behaviours["ExtractEntities"] = lambda request, context: answer
    (found,) = client.extract_entities("entities", "in Kiel", min_score=0.25)[0]
    assert "in Kiel"[found.start : found.end] == found.text
    assert scripted.requests[0].min_score == 0.25


def test_vectors_travel_packed_and_arrive_as_lists(client: Client, scripted: Scripted) -> None:
    def packed(request: embeddings.EmbedRequest, _: object) -> embeddings.EmbedResponse:
        assert request.options.encoding == embeddings.VECTOR_ENCODING_PACKED
        assert not request.options.HasField("normalize")
        response = embeddings.EmbedResponse()
        for text in request.texts:
            response.embeddings.add(packed=struct.pack("<2f", 0.5, len(text)), tokens=2)
        return response

    scripted.behaviours["Embed"] = packed
    vectors = client.embed("minilm", ["a", "bc"])
    assert list(vectors) == [[0.5, 1.0], [0.5, 2.0]]
    assert vectors[1:] == [[0.5, 2.0]]
    assert vectors.tokens == [2, 2]
    matrix = vectors.numpy()
    assert matrix.dtype == numpy.float32
    assert matrix.tolist() == list(vectors)


def test_a_tier_that_there_is_not_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="one of interactive"):
        client.embed("minilm", "a", tier="urgent")  # type: ignore[arg-type]
