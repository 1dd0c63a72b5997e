"""Vectors are cut, scaled and encoded as asked, and their lengths in tokens are honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.embeddings import embeddings
from gateway.dispatch import Answer
from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import InputTooLong
from tests.gateway.answered import answer, floats, ints
from tests.gateway.specs import spec

MODEL = spec("feature-extraction", labels=())
VECTORS = [[3.0, 4.0, 0.0, 12.0], [0.0, 2.0, 0.0, 0.0]]


def answered(
    vectors: list[list[float]] = VECTORS,
    tokens: tuple[int, ...] = (5, 7),
    totals: tuple[int, ...] = (5, 7),
) -> Answer:
    return answer(
        floats("embedding", vectors), ints("tokens", tokens), ints("total_tokens", totals)
    )


def vectors_of(options: pb.EmbedOptions, given_answer: Answer | None = None) -> list[list[float]]:
    found, _ = embeddings(given_answer or answered(), MODEL, options)
    if options.encoding == pb.VECTOR_ENCODING_PACKED:
        assert not any(one.values for one in found)
        return [np.frombuffer(one.packed, "<f4").tolist() for one in found]
    assert not any(one.packed for one in found)
    return [list(one.values) for one in found]


@pytest.mark.parametrize("encoding", [pb.VECTOR_ENCODING_UNSPECIFIED, pb.VECTOR_ENCODING_PACKED])
def test_vectors_have_length_1_unless_told_otherwise(
    encoding: pb.VectorEncoding.ValueType,
) -> None:
    scaled = vectors_of(pb.EmbedOptions(encoding=encoding))
    np.testing.assert_allclose(scaled, np.array(VECTORS) / [[13.0], [2.0]], rtol=1e-6)
    assert vectors_of(pb.EmbedOptions(encoding=encoding, normalize=False)) == VECTORS


def test_fewer_dimensions_are_the_leading_ones_scaled_again() -> None:
    cut = vectors_of(pb.EmbedOptions(dimensions=2))
    np.testing.assert_allclose(cut, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)
    assert vectors_of(pb.EmbedOptions(dimensions=2, normalize=False)) == [[3, 4], [0, 2]]


def test_a_vector_of_zeros_stays_as_it_is() -> None:
    zeros = answered([[0.0, 0.0, 0.0, 5.0], [0.0, 2.0, 0.0, 0.0]])
    assert vectors_of(pb.EmbedOptions(dimensions=1), zeros) == [[0.0], [0.0]]


def test_what_the_model_has_scaled_is_left_alone_bit_for_bit() -> None:
    dice = np.random.default_rng(0)
    vectors = dice.normal(size=(2, 4)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found, _ = embeddings(
        answered(vectors.tolist()), MODEL, pb.EmbedOptions(encoding=pb.VECTOR_ENCODING_PACKED)
    )
    assert b"".join(one.packed for one in found) == vectors.tobytes()


@given(
    st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), min_size=1, max_size=5
    ),
    st.integers(0, 4),
    st.booleans(),
)
def test_both_encodings_hold_the_same_floats(
    vectors: list[list[float]], dimensions: int, normalize: bool
) -> None:
    counts = (1,) * len(vectors)
    given_answer = answered(vectors, counts, counts)
    plain = pb.EmbedOptions(dimensions=dimensions, normalize=normalize)
    packed = pb.EmbedOptions(encoding=pb.VECTOR_ENCODING_PACKED)
    packed.MergeFrom(plain)
    assert vectors_of(plain, given_answer) == vectors_of(packed, given_answer)


def test_a_text_that_is_too_long_is_refused_by_name() -> None:
    given_answer = answered(tokens=(256, 256), totals=(256, 300))
    with pytest.raises(InputTooLong) as caught:
        embeddings(given_answer, MODEL, pb.EmbedOptions())
    (violation,) = caught.value.violations
    assert violation.field == "texts[1]"
    assert violation.description == "has 300 tokens; the model reads 256"


def test_a_text_may_be_cut_when_that_was_asked_for() -> None:
    given_answer = answered(tokens=(256, 256), totals=(256, 300))
    found, usage = embeddings(given_answer, MODEL, pb.EmbedOptions(truncation=pb.TRUNCATION_END))
    assert [(one.tokens, one.truncated) for one in found] == [(256, False), (256, True)]
    assert usage == metadata_pb2.Usage(input_units=512, unit=metadata_pb2.USAGE_UNIT_TOKEN)
