"""Requests of the Open Inference Protocol are held to the signature, and contents to our rules."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb

from gateway.tensors import Tensor, bytes_tensor
from gateway.validation.oip import check_infer, priority, read_inputs
from penstock.service.packages import ModelSpec
from tests.gateway.pictures import picture, png_header
from tests.gateway.specs import spec
from tests.gateway.violations import fields_of, violations_of

TEXTS = spec("text-classification")
TABULAR = spec("tabular-classification")
SCENES = spec("object-detection")
STORIES = spec("text-generation", labels=())


def request_of(*tensors: tuple[str, str, list[int], bytes], **fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name="model",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape, _ in tensors
        ],
        raw_input_contents=[data for *_, data in tensors],
        **fields,
    )


def texts(*values: bytes) -> tuple[str, str, list[int], bytes]:
    return "text", "BYTES", [len(values), 1], bytes_tensor("text", values).data


def test_what_tritonclient_sends_is_read() -> None:
    features = triton.InferInput("features", [2, 3], "FP32")
    features.set_data_from_numpy(np.array([[1, 2, 3], [4, 0, 6]], dtype=np.float32))
    request = pb.ModelInferRequest(model_name="model", inputs=[features._get_tensor()])
    request.raw_input_contents.append(features._get_content())
    check_infer(request)
    rows, tensors = read_inputs(request, TABULAR)
    assert rows == 2
    assert tensors == [Tensor("features", "FP32", (3,), features._get_content())]


def test_typed_contents_are_the_same_as_raw_ones() -> None:
    request = request_of(("features", "FP32", [1, 3], b""))
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1.5, 2.0, 3.0])
    rows, tensors = read_inputs(request, TABULAR)
    assert (rows, tensors[0].data) == (1, np.array([1.5, 2, 3], dtype="<f4").tobytes())
    request = request_of(texts(b"hello", b"you"))
    expected = read_inputs(request, TEXTS)
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.extend([b"hello", b"you"])
    assert read_inputs(request, TEXTS) == expected


NUMBERS = ("features", "FP32", [1, 3], bytes(12))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            request_of(("feature", "FP32", [1, 3], bytes(12))),
            [
                ("inputs[0].name", "'feature' is not one of features"),
                ("inputs", "'features' is missing"),
            ],
        ),
        (request_of(NUMBERS, NUMBERS), [("inputs[1].name", "'features' comes twice")]),
        (
            request_of(("features", "FP64", [1, 3], bytes(24))),
            [("inputs[0].datatype", "is 'FP64', not FP32")],
        ),
        (
            request_of(("features", "FP32", [1, 4], bytes(16))),
            [("inputs[0].shape", "is [1, 4], not [1, 3]")],
        ),
        (
            request_of(("features", "FP32", [3], bytes(12))),
            [("inputs[0].shape", "is [3], not [3, 3]")],
        ),
        (
            request_of(("features", "FP32", [0, 3], b"")),
            [("inputs[0].shape", "must begin with 1 to 10,000 rows")],
        ),
        (
            request_of(("features", "FP32", [10_001, 3], b"")),
            [("inputs[0].shape", "must begin with 1 to 10,000 rows")],
        ),
        (
            request_of(("features", "FP32", [-1, 3], b"")),
            [("inputs[0].shape", "must begin with 1 to 10,000 rows")],
        ),
        (
            request_of(("features", "FP32", [2, 3], bytes(12))),
            [("raw_input_contents[0]", "holds 1 rows, not the 2 of the shape")],
        ),
        (
            request_of(("features", "FP32", [1, 3], bytes(11))),
            [("raw_input_contents[0]", "data ends within an element")],
        ),
        (
            request_of(("features", "FP32", [1, 3], bytes(8))),
            [("raw_input_contents[0]", "data ends within a row")],
        ),
        (
            request_of(("features", "FP32", [1, 3], np.full(3, np.nan, "<f4").tobytes())),
            [
                ("features", "row 0: feature 'amount' is NaN, and not optional"),
                ("features", "row 0: feature 'country' is NaN, and not optional"),
            ],
        ),
        (
            request_of(
                NUMBERS, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="x")]
            ),
            [("outputs[0].name", "'x' is not one of scores")],
        ),
    ],
)
def test_tensors_that_do_not_fit_the_signature_are_refused(
    request_: pb.ModelInferRequest, expected: list[tuple[str, str]]
) -> None:
    assert violations_of(lambda: read_inputs(request_, TABULAR)) == expected


@pytest.mark.parametrize(
    ("model", "tensor", "expected"),
    [
        (TEXTS, texts(b"fine", b""), ("text[1]", "is empty")),
        (TEXTS, texts(b"\xff\xfe"), ("text[0]", "is not UTF-8")),
        (
            TEXTS,
            texts(b"x" * (1 << 20)),
            ("text[0]", "has 1,048,576 bytes; at most 262,144 are allowed"),
        ),
        (TEXTS, texts(*[b"x"] * 2_049), ("text", "has 2,049 items; at most 2,048 are allowed")),
        (
            TEXTS,
            ("text", "BYTES", [1, 1], b"\xff\xff\xff\xffx"),
            ("raw_input_contents[0]", "data ends within an element"),
        ),
        (
            SCENES,
            ("image", "BYTES", [1, 1], bytes_tensor("image", [png_header(65_500, 65_500)]).data),
            ("image[0]", "has 65500 x 65500 pixels; at most 40,000,000 are allowed"),
        ),
        (
            SCENES,
            ("image", "BYTES", [65, 1], bytes_tensor("image", [picture("GIF")] * 65).data),
            ("image", "has 65 items; at most 64 are allowed"),
        ),
    ],
)
def test_contents_are_held_to_the_same_rules_as_our_own_messages(
    model: ModelSpec, tensor: tuple[str, str, list[int], bytes], expected: tuple[str, str]
) -> None:
    assert violations_of(lambda: read_inputs(request_of(tensor), model)) == [expected]


def story(**inputs: bytes) -> pb.ModelInferRequest:
    return request_of(
        *[(name, "BYTES", [1], bytes_tensor(name, [value]).data) for name, value in inputs.items()]
    )


def test_a_generation_needs_a_prompt_and_takes_the_rest() -> None:
    sampling = json.dumps({"max_tokens": 5, "temperature": 0.5, "stop": ["."], "seed": 4}).encode()
    request = story(text_input=b"Once", sampling_parameters=sampling)
    request.inputs.add(name="stream", datatype="BOOL", shape=[1])
    request.raw_input_contents.append(b"\x01")
    rows, tensors = read_inputs(request, STORIES)
    assert rows == 1
    assert [tensor.name for tensor in tensors] == ["text_input", "sampling_parameters", "stream"]
    chat = json.dumps([{"role": "user", "content": "Hi"}]).encode()
    read_inputs(story(text_input=b"", messages=chat), STORIES)
    read_inputs(story(messages=chat), STORIES)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"text_input": b""}, "text_input"),
        ({"text_input": b"\xff"}, "text_input"),
        ({"text_input": b"", "messages": b"[{}]"}, "messages"),
        ({"text_input": b"", "messages": b"["}, "messages"),
        ({"text_input": b"", "messages": b"[" * 100_000}, "messages"),
        ({"text_input": b"", "messages": b'[{"role": "robot", "content": "x"}]'}, "messages"),
        ({"text_input": b"", "messages": b'[{"role": "user", "content": 5}]'}, "messages"),
        ({"text_input": b"x", "sampling_parameters": b"{"}, "sampling_parameters"),
        ({"text_input": b"x", "sampling_parameters": b"\xff"}, "sampling_parameters"),
        ({"text_input": b"x", "sampling_parameters": b'{"n": 3}'}, "sampling_parameters"),
        ({"text_input": b"x", "sampling_parameters": b'{"seed": [' * 9_999}, "sampling_parameters"),
        (
            {"text_input": b"x", "sampling_parameters": b'{"temperature": 3}'},
            "parameters.temperature",
        ),
    ],
)
def test_a_generation_is_held_to_the_rules_of_generate(
    inputs: dict[str, bytes], field: str
) -> None:
    assert fields_of(lambda: read_inputs(story(**inputs), STORIES)) == [field]


def test_a_generation_has_no_row_axis() -> None:
    request = story(text_input=b"Once")
    request.inputs[0].shape[:] = [1, 1]
    assert violations_of(lambda: read_inputs(request, STORIES)) == [
        ("inputs[0].shape", "is [1, 1], not [1]")
    ]


def test_what_needs_no_model_is_said_at_once() -> None:
    request = pb.ModelInferRequest(
        model_name="UP", outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="x")]
    )
    request.parameters["sequence_id"].int64_param = 4
    request.parameters["priority"].uint64_param = 5
    request.outputs[0].parameters["shared_memory_region"].string_param = "x"
    request.raw_input_contents.append(b"x")
    assert fields_of(lambda: check_infer(request)) == [
        "model_name",
        "parameters",
        "parameters",
        "inputs",
        "outputs[0].parameters",
        "raw_input_contents",
    ]


def test_a_stream_keeps_to_its_model() -> None:
    check_infer(request_of(NUMBERS), "model")
    assert fields_of(lambda: check_infer(request_of(NUMBERS), "other")) == ["model_name"]


def test_priority_is_the_tier() -> None:
    request = request_of(NUMBERS)
    assert priority(request) == 0
    request.parameters["priority"].uint64_param = 3
    assert priority(request) == 3
    request.parameters["priority"].int64_param = 4
    assert priority(request) == 4
