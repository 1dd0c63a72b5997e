"""What requests of InferenceService are refused for, and that all of it is said at once."""

from __future__ import annotations

import base64
import urllib.parse

import pytest

from gateway.validation.fields import MAX_TEXT_BYTES, MOST_VIOLATIONS, Violations
from gateway.validation.inference import (
    MAX_ROWS,
    check_classify,
    check_classify_fits,
    check_detect_objects,
    check_extract_entities,
    check_generate,
    check_generate_fits,
    check_predict,
)
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.types.v1 import content_pb2
from penstock.errors import InvalidArgument
from penstock.service.rpc import status_of
from tests.gateway.pictures import picture
from tests.gateway.specs import spec
from tests.gateway.violations import NAN, fields_of, violations_of

IMAGE = content_pb2.Image(data=picture("PNG"))


def matrix(rows: int, columns: int, data: bytes | None = None) -> pb.FeatureMatrix:
    data = bytes(4 * rows * columns) if data is None else data
    return pb.FeatureMatrix(rows=rows, columns=columns, data=data)


@pytest.mark.parametrize(
    "model",
    ["fraud", "ft:base:acme:v2", "a" * 128, "0", "a.b-c_d"],
)
def test_a_models_name_is_accepted(model: str) -> None:
    check_classify(pb.ClassifyRequest(model=model, texts=["x"]))


@pytest.mark.parametrize(
    "model",
    ["", "Fraud", "../fraud", "a" * 129, "fraud\n", "-fraud", "frau d", "model\x00", "betrüger"],
)
def test_what_cannot_be_a_models_name_is_refused(model: str) -> None:
    assert fields_of(lambda: check_classify(pb.ClassifyRequest(model=model, texts=["x"]))) == [
        "model"
    ]


def test_a_version_and_a_tier_that_cannot_be_are_refused_together_with_the_rest() -> None:
    request = pb.ClassifyRequest(model="UP", model_version="a/b", tier=9, texts=["", "fine", ""])  # type: ignore[arg-type]
    assert violations_of(lambda: check_classify(request)) == [
        (
            "model",
            "'UP' cannot be a model's name: up to 128 of a-z 0-9 . _ : -,"
            " beginning with a letter or digit",
        ),
        ("model_version", "'a/b' cannot be a version"),
        ("tier", "9 is not a known value"),
        ("texts[0]", "is empty"),
        ("texts[2]", "is empty"),
    ]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.PredictRequest(), [("rows", "give rows or a matrix")]),
        (
            pb.PredictRequest(rows=pb.FeatureRows()),
            [("rows.rows", "is empty; give 1 to 10,000")],
        ),
        (
            pb.PredictRequest(rows=pb.FeatureRows(rows=[pb.FeatureRow()] * 10_001)),
            [("rows.rows", "has 10,001 items; at most 10,000 are allowed")],
        ),
        (
            pb.PredictRequest(matrix=matrix(10_001, 1)),
            [("matrix.rows", "is 10,001; 1 to 10,000 are allowed")],
        ),
        (
            pb.PredictRequest(matrix=pb.FeatureMatrix()),
            [
                ("matrix.columns", "is 0"),
                ("matrix.rows", "is 0; 1 to 10,000 are allowed"),
            ],
        ),
        (
            pb.PredictRequest(matrix=matrix(3, 4, bytes(47))),
            [("matrix.data", "has 47 bytes; 3 rows x 4 columns x 4 bytes make 48")],
        ),
        (
            pb.PredictRequest(matrix=matrix(1, 2**32 - 1, b"")),
            [
                (
                    "matrix.data",
                    "has 0 bytes; 1 rows x 4,294,967,295 columns x 4 bytes make 17,179,869,180",
                )
            ],
        ),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(
    request_: pb.PredictRequest, expected: list[tuple[str, str]]
) -> None:
    request_.model = "fraud"
    assert violations_of(lambda: check_predict(request_)) == expected


def test_the_largest_matrix_is_accepted() -> None:
    check_predict(pb.PredictRequest(model="fraud", matrix=matrix(MAX_ROWS, 2)))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["x"] * 1_001, [("texts", "has 1,001 items; at most 1,000 are allowed")]),
        (
            ["x", "y" * (1 << 20)],
            [("texts[1]", "has 1,048,576 bytes; at most 262,144 are allowed")],
        ),
        (["é" * (MAX_TEXT_BYTES // 2)], []),
        (
            ["é" * (MAX_TEXT_BYTES // 2) + "x"],
            [("texts[0]", "has 262,145 bytes; at most 262,144 are allowed")],
        ),
        (["x"] * 1_000, []),
        ([], [("texts", "is empty; give 1 to 1,000")]),
    ],
)
def test_texts_are_counted_and_measured_in_utf8(
    texts: list[str], expected: list[tuple[str, str]]
) -> None:
    request = pb.ExtractEntitiesRequest(model="entities", texts=texts)
    assert violations_of(lambda: check_extract_entities(request)) == expected


def test_texts_and_images_exclude_each_other() -> None:
    both = pb.ClassifyRequest(model="digits", texts=["x"], images=[IMAGE])
    neither = pb.ClassifyRequest(model="digits")
    assert violations_of(lambda: check_classify(both)) == [
        ("images", "give texts or images, not both")
    ]
    assert violations_of(lambda: check_classify(neither)) == [("texts", "give texts or images")]


def test_a_model_is_given_what_it_reads() -> None:
    reads_images, reads_texts = spec("image-classification"), spec("text-classification")
    texts = pb.ClassifyRequest(model="digits", texts=["x"])
    images = pb.ClassifyRequest(model="digits", images=[IMAGE])
    check_classify_fits(texts, reads_texts)
    check_classify_fits(images, reads_images)
    assert fields_of(lambda: check_classify_fits(texts, reads_images)) == ["texts"]
    assert fields_of(lambda: check_classify_fits(images, reads_texts)) == ["images"]


@pytest.mark.parametrize("score", [-0.1, 1.1, NAN])
def test_a_least_score_outside_0_to_1_is_refused(score: float) -> None:
    entities = pb.ExtractEntitiesRequest(model="entities", texts=["x"], min_score=score)
    objects = pb.DetectObjectsRequest(model="scenes", images=[IMAGE], min_score=score)
    assert fields_of(lambda: check_extract_entities(entities)) == ["min_score"]
    assert fields_of(lambda: check_detect_objects(objects)) == ["min_score"]


def test_at_most_64_images_are_accepted() -> None:
    request = pb.DetectObjectsRequest(model="scenes", images=[IMAGE] * 65)
    assert violations_of(lambda: check_detect_objects(request)) == [
        ("images", "has 65 items; at most 64 are allowed")
    ]
    del request.images[64:]
    check_detect_objects(request)


USER = pb.ChatMessage(role=pb.CHAT_ROLE_USER, content="Hello")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.GenerateRequest(), [("prompt", "give a prompt or messages")]),
        (
            pb.GenerateRequest(prompt="x", messages=[USER]),
            [("messages", "give a prompt or messages, not both")],
        ),
        (
            pb.GenerateRequest(
                messages=[USER, pb.ChatMessage(content="x"), pb.ChatMessage(role=7, content="")]  # type: ignore[arg-type]
            ),
            [
                ("messages[1].role", "is required"),
                ("messages[2].role", "7 is not a known value"),
                ("messages[2].content", "is empty"),
            ],
        ),
        (
            pb.GenerateRequest(
                prompt="x",
                parameters=pb.GenerationParameters(
                    max_tokens=0, temperature=2.5, top_p=-1, stop=["fine", "", "x" * 257]
                ),
            ),
            [
                ("parameters.max_tokens", "is 0; 1 to 32,768 are allowed"),
                ("parameters.temperature", "2.5 is not between 0 and 2"),
                ("parameters.top_p", "-1 is not between 0 and 1"),
                ("parameters.stop[1]", "has 0 characters; 1 to 256 are allowed"),
                ("parameters.stop[2]", "has 257 characters; 1 to 256 are allowed"),
            ],
        ),
        (
            pb.GenerateRequest(
                prompt="x",
                parameters=pb.GenerationParameters(
                    max_tokens=32_769, temperature=NAN, stop=["x"] * 17
                ),
            ),
            [
                ("parameters.max_tokens", "is 32,769; 1 to 32,768 are allowed"),
                ("parameters.temperature", "nan is not between 0 and 2"),
                ("parameters.stop", "has 17 items; at most 16 are allowed"),
            ],
        ),
        (
            pb.GenerateRequest(
                messages=[USER],
                parameters=pb.GenerationParameters(temperature=0, top_p=1, top_k=5, seed=-1),
            ),
            [],
        ),
    ],
)
def test_generation_takes_a_prompt_or_a_chat_and_sane_parameters(
    request_: pb.GenerateRequest, expected: list[tuple[str, str]]
) -> None:
    request_.model = "storyteller"
    assert violations_of(lambda: check_generate(request_)) == expected


def test_a_model_that_reads_prompts_only_is_given_no_chat() -> None:
    chat, prompt = pb.GenerateRequest(messages=[USER]), pb.GenerateRequest(prompt="x")
    ours = spec("text-generation", labels=())
    vllm = spec("text-generation", labels=(), runtime="vllm")
    for request, model in ((chat, ours), (prompt, ours), (prompt, vllm)):
        check_generate_fits(request, model)
    assert fields_of(lambda: check_generate_fits(chat, vllm)) == ["messages"]


def metadata_bytes(error: InvalidArgument) -> int:
    """The refusal as it travels: percent-encoded text, and base64 of the details."""
    details = status_of(error).SerializeToString()
    return len(urllib.parse.quote(error.message)) + len(base64.b64encode(details))


def test_a_refusal_fits_into_the_metadata_that_clients_take() -> None:
    stop = ["é" * 300] * 16
    chat = [pb.ChatMessage(role=9)] * 900  # type: ignore[arg-type]
    request = pb.GenerateRequest(
        model="É" * 500, messages=chat, parameters=pb.GenerationParameters(stop=stop)
    )
    with pytest.raises(InvalidArgument) as caught:
        check_generate(request)
    assert len(caught.value.violations) == MOST_VIOLATIONS
    assert metadata_bytes(caught.value) < 7_500


def test_even_long_descriptions_in_wide_characters_fit() -> None:
    violations = Violations()
    for position in range(50):
        violations.add(f"rows[{position}]", "語" * 1_000)
    with pytest.raises(InvalidArgument) as caught:
        violations.refuse()
    assert caught.value.violations
    assert metadata_bytes(caught.value) < 7_500
