"""From messages to tensors and from a model's answers to messages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters import classification, detection, entities, generation, tabular
from gateway.tensors import Tensor, bytes_tensor, read_bytes
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.types.v1 import content_pb2, metadata_pb2
from tests.gateway.answered import answer, documents, floats, ints
from tests.gateway.specs import spec

TABULAR = spec("tabular-classification")
REGRESSION = spec("tabular-regression", labels=())
TEXTS = spec("text-classification")
IMAGES = spec("image-classification")
STORIES = spec("text-generation", labels=())
VLLM = spec("text-generation", labels=(), runtime="vllm")


def test_features_travel_as_one_row_axis_and_the_columns() -> None:
    tensor = tabular.features_tensor(bytes(24), TABULAR)
    assert tensor == Tensor("features", "FP32", (3,), bytes(24))


def test_a_tabular_classification_names_the_best_label_and_all_probabilities() -> None:
    found, confidence = tabular.predictions(
        answer(floats("scores", [[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]])), TABULAR
    )
    assert [(p.label, p.score) for p in found] == [("b", 0.5), ("c", 0.75)]
    assert [(p.label, p.probability) for p in found[0].probabilities] == [
        ("a", 0.25),
        ("b", 0.5),
        ("c", 0.25),
    ]
    assert confidence == 0.5


def test_a_regression_is_a_value_without_label_or_confidence() -> None:
    found, confidence = tabular.predictions(answer(floats("value", [[151.5], [-3.0]])), REGRESSION)
    assert found == [pb.Prediction(score=151.5), pb.Prediction(score=-3.0)]
    assert confidence is None


def test_texts_and_images_travel_as_bytes() -> None:
    texts = pb.ClassifyRequest(texts=["grüße", ""])
    images = pb.ClassifyRequest(images=[content_pb2.Image(data=b"\x00\xff")])
    assert classification.classify_tensor(texts) == bytes_tensor("text", ["grüße".encode(), b""])
    assert classification.classify_tensor(images) == bytes_tensor("image", [b"\x00\xff"])


@pytest.mark.parametrize(
    ("top_k", "labels"),
    [
        (0, [["b", "a", "c"], ["c", "a", "b"]]),
        (1, [["b"], ["c"]]),
        (2, [["b", "a"], ["c", "a"]]),
        (99, [["b", "a", "c"], ["c", "a", "b"]]),
    ],
)
def test_labels_are_ranked_and_cut(top_k: int, labels: list[list[str]]) -> None:
    scores = floats("scores", [[0.25, 0.5, 0.125], [0.125, 0.125, 0.75]])
    found, confidence = classification.rankings(answer(scores), TEXTS, top_k)
    assert [[ranked.label for ranked in one.labels] for one in found] == labels
    assert found[1].labels[0].confidence == 0.75
    assert confidence == 0.5


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=20),
    st.integers(0, 5),
)
def test_confidence_is_the_lowest_of_the_best_scores(scores: list[list[float]], top_k: int) -> None:
    found, confidence = classification.rankings(answer(floats("scores", scores)), TEXTS, top_k)
    assert confidence == min(max(row) for row in scores)
    for one, row in zip(found, scores, strict=True):
        given_scores = [ranked.confidence for ranked in one.labels]
        assert given_scores == sorted(row, reverse=True)[: top_k or 3]


def test_texts_are_billed_by_token_and_images_by_image() -> None:
    read = answer(floats("scores", [[1, 0, 0]] * 2), ints("tokens", [7, 5]))
    assert classification.classify_usage(read, TEXTS, 2) == metadata_pb2.Usage(
        input_units=12, unit=metadata_pb2.USAGE_UNIT_TOKEN
    )
    assert classification.classify_usage(read, IMAGES, 2) == metadata_pb2.Usage(
        input_units=2, unit=metadata_pb2.USAGE_UNIT_IMAGE
    )


def span(start: int, end: int, score: float, label: str = "CITY") -> dict[str, object]:
    return {"start": start, "end": end, "label": label, "score": score}


def test_entities_come_in_the_texts_order_with_their_own_text() -> None:
    text = "👩‍🚀 von Köln nach Łódź"
    koeln, lodz = text.index("Köln"), text.index("Łódź")
    spans = [span(lodz, lodz + 4, 0.5), span(koeln, koeln + 4, 0.75), span(0, 3, 0.25, "WHO")]
    found, confidence = entities.entity_lists(
        answer(documents("entities", [spans, [], [span(0, 2, 0.625)]])),
        [text, "nothing", "Ulm"],
        0.5,
    )
    assert [[(e.text, e.start, e.end, e.score) for e in one.entities] for one in found] == [
        [("Köln", koeln, koeln + 4, 0.75), ("Łódź", lodz, lodz + 4, 0.5)],
        [],
        [("Ul", 0, 2, 0.625)],
    ]
    assert confidence == 0.625


def test_nothing_found_has_no_confidence() -> None:
    found, confidence = entities.entity_lists(answer(documents("entities", [[]])), ["x"], 0)
    assert found == [pb.EntityList()]
    assert confidence is None
    images = documents("detections", [{"width": 2, "height": 3, "detections": []}])
    objects, confidence = detection.detection_lists(answer(images), 0, 0)
    assert objects == [pb.DetectionList(width=2, height=3)]
    assert confidence is None


@given(st.text(min_size=1), st.data())
def test_an_entitys_text_is_cut_by_code_points(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    ((one,), _) = entities.entity_lists(
        answer(documents("entities", [[span(start, end, 1.0)]])), [text], 0
    )
    (entity,) = one.entities
    assert entity.text == text[start:end]
    assert entity.end - entity.start == len(entity.text)


def test_detections_are_cut_by_score_and_number() -> None:
    boxes = [
        {"label": "disc", "score": score, "box": [1.5, 2.0, 3.0, 4.25]}
        for score in (0.75, 0.875, 0.25, 0.5)
    ]
    image = {"width": 640, "height": 480, "detections": boxes}
    document = answer(documents("detections", [image]))
    found, confidence = detection.detection_lists(document, 0.5, 0)
    assert [one.score for one in found[0].detections] == [0.875, 0.75, 0.5]
    assert (found[0].width, found[0].height, confidence) == (640, 480, 0.875)
    assert found[0].detections[0].box == pb.BoundingBox(x_min=1.5, y_min=2, x_max=3, y_max=4.25)
    found, _ = detection.detection_lists(document, 0.0, 1)
    assert [one.score for one in found[0].detections] == [0.875]


def test_a_prompt_travels_with_only_the_parameters_that_were_given() -> None:
    request = pb.GenerateRequest(
        prompt="Once", parameters=pb.GenerationParameters(temperature=0, stop=["."], seed=-4)
    )
    inputs = {tensor.name: tensor for tensor in generation.generation_tensors(request, STORIES)}
    assert inputs.keys() == {"text_input", "stream", "sampling_parameters"}
    assert inputs["text_input"] == bytes_tensor("text_input", [b"Once"])
    assert inputs["stream"] == Tensor("stream", "BOOL", (1,), b"\x01")
    (sampling,) = read_bytes(inputs["sampling_parameters"])
    assert json.loads(sampling) == {"temperature": 0.0, "stop": ["."], "seed": -4}


def test_a_chat_travels_as_json_in_order() -> None:
    request = pb.GenerateRequest(
        messages=[
            pb.ChatMessage(role=pb.CHAT_ROLE_SYSTEM, content="Be brief."),
            pb.ChatMessage(role=pb.CHAT_ROLE_USER, content="“Hé”"),
            pb.ChatMessage(role=pb.CHAT_ROLE_ASSISTANT, content="Yes?"),
        ]
    )
    inputs = {tensor.name: tensor for tensor in generation.generation_tensors(request, STORIES)}
    assert json.loads(read_bytes(inputs["messages"])[0]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "“Hé”"},
        {"role": "assistant", "content": "Yes?"},
    ]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (b"", pb.FINISH_REASON_UNSPECIFIED),
        (b"stop", pb.FINISH_REASON_STOP),
        (b"length", pb.FINISH_REASON_LENGTH),
    ],
)
def test_a_step_of_a_generation_is_read(reason: bytes, expected: pb.FinishReason.ValueType) -> None:
    step = generation.StepReader(STORIES).read(
        answer(
            bytes_tensor("text_output", ["né".encode()]),
            bytes_tensor("finish_reason", [reason]),
            ints("num_input_tokens", [9], "UINT32"),
            ints("num_output_tokens", [4], "UINT32"),
        )
    )
    assert step == ("né", expected, 9, 4)


def test_the_vllm_backend_is_asked_to_report_and_its_counts_are_summed() -> None:
    inputs = generation.generation_tensors(pb.GenerateRequest(prompt="x"), VLLM)
    asked = {tensor.name for tensor in inputs if tensor.data == b"\x01"}
    assert asked == {
        "stream",
        "return_finish_reason",
        "return_num_input_tokens",
        "return_num_output_tokens",
    }
    reader = generation.StepReader(VLLM)
    steps = [
        reader.read(
            answer(
                bytes_tensor("text_output", [b"x"]),
                bytes_tensor("finish_reason", [reason]),
                ints("num_input_tokens", [9], "UINT32"),
                ints("num_output_tokens", [written], "UINT32"),
            )
        )
        for reason, written in ((b"None", 2), (b"None", 3), (b"length", 1))
    ]
    assert [step.tokens_written for step in steps] == [2, 5, 6]
    assert [step.finish_reason for step in steps] == [0, 0, pb.FINISH_REASON_LENGTH]
