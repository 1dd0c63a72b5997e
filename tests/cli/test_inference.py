"""Each verb sends what it was given and prints what came back, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.models.v1 import models_pb2 as models
from penstock.api.types.v1 import metadata_pb2
from tests.cli.conftest import Run
from tests.client.scripted import Scripted, classified


def test_texts_are_classified(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = classified
    result = run("classify", "intent", "where is it", "[bold]refund", "--top-k", "1")
    assert result.exit_code == 0
    assert "where is it" in result.stdout
    assert "[bold]refund" in result.stdout, "texts are no markup"
    assert "0.750" in result.stdout
    assert "request request-1" in result.stderr
    assert scripted.metadata[0]["authorization"] == "Bearer psk_test"


def test_json_is_one_object(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = classified
    answer = json.loads(run("classify", "intent", "hello", "--json").stdout)
    assert answer["results"] == [{"labels": [{"label": "hello", "confidence": 0.75}]}]
    assert answer["metadata"]["request_id"] == "request-1"


def test_texts_come_from_a_file_or_stdin_a_line_each(
    run: Run, scripted: Scripted, tmp_path: Path
) -> None:
    scripted.behaviours["Classify"] = classified
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffgrün\r\n\r\nzwei\n".encode())
    run("classify", "intent", "--file", str(path))
    run("classify", "intent", "-", stdin="drei\nvier")
    run("classify", "intent", "--file", "-", stdin="fünf\n")
    assert [list(request.texts) for request in scripted.requests] == [
        ["grün", "zwei"],
        ["drei", "vier"],
        ["fünf"],
    ]


def test_images_are_read_from_files_and_stdin(run: Run, scripted: Scripted, tmp_path: Path) -> None:
    def ranked(request: inference.ClassifyRequest, _: object) -> inference.ClassifyResponse:
        labels = [inference.RankedLabel(label="seven", confidence=1)]
        ranking = inference.Classification(labels=labels)
        return inference.ClassifyResponse(results=[ranking] * len(request.images))

    def found(request: inference.DetectObjectsRequest, _: object) -> object:
        box = inference.BoundingBox(x_min=1, y_min=2, x_max=3, y_max=4.5)
        detection = inference.Detection(label="ship", score=0.5, box=box)
        result = inference.DetectionList(detections=[detection], width=64, height=32)
        empty = inference.DetectionList(width=64, height=32)
        return inference.DetectObjectsResponse(results=[result, empty])

    scripted.behaviours |= {"Classify": ranked, "DetectObjects": found}
    path = tmp_path / "7.png"
    path.write_bytes(b"\x89PNG")
    assert "seven" in run("classify", "digits", "--image", str(path)).stdout
    result = run("detect", "scenes", str(path), "-", "--min-score", "0.25", stdin=b"GIF89a")
    assert [image.data for image in scripted.requests[1].images] == [b"\x89PNG", b"GIF89a"]
    assert scripted.requests[1].min_score == 0.25
    assert "ship" in result.stdout
    assert "4.5" in result.stdout
    answer = json.loads(run("detect", "scenes", str(path), "--json").stdout)
    assert answer["results"][0]["objects"][0]["box"] == [1, 2, 3, 4.5]


def test_entities_are_listed(run: Run, scripted: Scripted) -> None:
    entity = inference.Entity(label="PLACE", text="Kiel", start=3, end=7, score=0.5)
    lists = [inference.EntityList(entities=[entity]), inference.EntityList()]
    answer = inference.ExtractEntitiesResponse(results=lists)
    scripted.behaviours["ExtractEntities"] = lambda request, context: answer
    result = run("entities", "entities", "in Kiel", "nowhere")
    assert "PLACE" in result.stdout
    assert "nowhere" in result.stdout
    as_json = json.loads(run("entities", "entities", "in Kiel", "nowhere", "--json").stdout)
    assert as_json["results"][0]["entities"][0]["start"] == 3
    assert as_json["results"][1] == {"entities": []}


def scored(request: inference.PredictRequest, _: object) -> inference.PredictResponse:
    """One prediction a row."""
    prediction = inference.Prediction(label="fraud", score=0.9)
    prediction.probabilities.add(label="fraud", probability=0.9)
    return inference.PredictResponse(predictions=[prediction] * len(request.rows.rows))


def test_rows_come_as_json(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["Predict"] = scored
    result = run("predict", "fraud", "--row", '{"amount": 5, "new": true, "country": "de"}')
    sent = scripted.requests[0].rows.rows[0].features
    assert (sent["amount"].number, sent["new"].flag, sent["country"].category) == (5, True, "de")
    assert "fraud 0.900" in result.stdout


def test_rows_come_as_csv_and_the_signature_says_which_are_categories(
    run: Run, scripted: Scripted
) -> None:
    model = models.Model(name="fraud")
    model.signature.features.add(name="amount")
    model.signature.features.add(name="postcode", categories=["24103", "10115"])
    answer = models.GetModelResponse(model=model)
    scripted.behaviours |= {"Predict": scored, "GetModel": lambda request, context: answer}
    result = run(
        "predict", "fraud", "--csv", "-", stdin="amount,postcode,km\n1.5,24103,\n2,10115,7\n"
    )
    assert result.exit_code == 0
    first, second = scripted.requests[1].rows.rows
    assert first.features["amount"].number == 1.5
    assert first.features["postcode"].category == "24103"
    assert "km" not in first.features
    assert second.features["km"].number == 7


def test_vectors_are_printed_whole_as_json(run: Run, scripted: Scripted) -> None:
    def embedded(request: embeddings.EmbedRequest, _: object) -> embeddings.EmbedResponse:
        response = embeddings.EmbedResponse()
        for text in request.texts:
            response.embeddings.add(values=[0.5] * 6, tokens=len(text))
        return response

    scripted.behaviours["Embed"] = embedded
    answer = json.loads(run("embed", "minilm", "ab", "c", "--json").stdout)
    assert answer["results"][0] == {"vector": [0.5] * 6, "tokens": 2, "truncated": False}
    table = run("embed", "minilm", "ab", "--truncate").stdout
    assert "0.5, 0.5, 0.5, 0.5, …" in table
    assert scripted.requests[1].options.truncation == embeddings.TRUNCATION_END


def told(_: Any, __: Any) -> Iterator[inference.GenerateResponse]:
    """A whole generation."""
    yield inference.GenerateResponse(delta="Once ")
    yield inference.GenerateResponse(delta="upon")
    last = inference.GenerateResponse(finish_reason=inference.FINISH_REASON_LENGTH)
    last.metadata.usage.CopyFrom(
        metadata_pb2.Usage(input_units=2, output_units=7, unit=metadata_pb2.USAGE_UNIT_TOKEN)
    )
    yield last


def test_a_text_is_generated(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["Generate"] = told
    result = run("generate", "storyteller", "Tell", "--max-tokens", "2", "--stop", "x")
    assert result.stdout == "Once upon\n"
    assert "2 tokens in, 7 out" in result.stderr
    assert scripted.requests[0].prompt == "Tell"
    assert list(scripted.requests[0].parameters.stop) == ["x"]
    answer = json.loads(run("generate", "storyteller", "-", "--json", stdin="Tell\nme").stdout)
    assert (answer["text"], answer["finish_reason"]) == ("Once upon", "length")
    assert scripted.requests[1].prompt == "Tell\nme"


def test_a_chat_is_sent_as_messages(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["Generate"] = told
    run("generate", "storyteller", "hello", "--system", "Be brief.")
    system, user = scripted.requests[0].messages
    assert (system.content, user.content) == ("Be brief.", "hello")
    assert scripted.requests[0].prompt == ""
