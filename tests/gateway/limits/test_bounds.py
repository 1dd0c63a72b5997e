"""No answer may use more than was reserved for it, and little more than that may be reserved."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.bounds import measured, upper_bound
from gateway.tensors import Tensor, bytes_tensor
from penstock.api.types.v1 import metadata_pb2 as pb
from tests.gateway.answered import ints
from tests.gateway.specs import spec


def test_rows_and_images_are_counted() -> None:
    table = spec("tabular-regression")
    features = Tensor("features", "FP32", (3,), bytes(12 * 7))
    assert upper_bound(table, 7, [features]) == pb.Usage(input_units=7, unit=pb.USAGE_UNIT_ROW)
    pictures = spec("image-classification")
    images = bytes_tensor("image", [b"a" * 1000, b"b"])
    assert upper_bound(pictures, 2, [images]) == pb.Usage(input_units=2, unit=pb.USAGE_UNIT_IMAGE)
    assert measured(table, 7, {}) == pb.Usage(input_units=7, unit=pb.USAGE_UNIT_ROW)
    assert measured(pictures, 2, {}) == pb.Usage(input_units=2, unit=pb.USAGE_UNIT_IMAGE)


@given(st.lists(st.text(max_size=400), min_size=1, max_size=8), st.sampled_from([0, 16, 256]))
def test_a_text_has_no_more_tokens_than_bytes_and_what_the_tokenizer_adds(
    texts: list[str], max_tokens: int
) -> None:
    model = spec("text-classification", max_tokens=max_tokens)
    encoded = [text.encode() for text in texts]
    expected = sum(min(len(text) + 2, max_tokens or len(text) + 2) for text in encoded)
    bound = upper_bound(model, len(texts), [bytes_tensor("text", encoded)])
    assert (bound.input_units, bound.unit) == (expected, pb.USAGE_UNIT_TOKEN)


def test_an_answer_says_what_it_read() -> None:
    used = measured(spec("text-classification"), 3, {"tokens": ints("tokens", [5, 6, 7], "INT32")})
    assert used == pb.Usage(input_units=18, unit=pb.USAGE_UNIT_TOKEN)


@pytest.mark.parametrize(
    ("asked", "context", "written"),
    [(None, 256, 128), (10, 256, 10), (999, 256, 256), (999, 0, 999)],
)
def test_a_generation_reserves_its_prompt_and_what_it_may_write(
    asked: int | None, context: int, written: int
) -> None:
    model = spec("text-generation", labels=(), max_tokens=context)
    sampling = json.dumps({} if asked is None else {"max_tokens": asked}).encode()
    inputs = [
        bytes_tensor("text_input", [b"once upon"]),
        Tensor("stream", "BOOL", (1,), b"\x01"),
        bytes_tensor("sampling_parameters", [sampling]),
    ]
    bound = upper_bound(model, 1, inputs)
    assert (bound.input_units, bound.output_units) == (11, written)


def test_a_chat_reserves_its_messages_and_their_template() -> None:
    model = spec("text-generation", labels=(), max_tokens=0)
    chat = json.dumps([{"role": "user", "content": "hello"}]).encode()
    inputs = [bytes_tensor("text_input", [b""]), bytes_tensor("messages", [chat])]
    assert upper_bound(model, 1, inputs).input_units > len(chat)
