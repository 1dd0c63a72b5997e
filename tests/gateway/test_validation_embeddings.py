"""What requests of EmbeddingsService are refused for."""

from __future__ import annotations

import pytest

from gateway.validation.embeddings import (
    check_embed,
    check_embed_fits,
    check_group,
    check_stream_opening,
)
from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from tests.gateway.specs import spec
from tests.gateway.violations import fields_of, violations_of


def test_2048_texts_are_accepted_and_one_more_is_not() -> None:
    request = pb.EmbedRequest(model="minilm", texts=["x"] * 2_048)
    check_embed(request)
    request.texts.append("x")
    assert violations_of(lambda: check_embed(request)) == [
        ("texts", "has 2,049 items; at most 2,048 are allowed")
    ]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (pb.EmbedOptions(encoding=3), "options.encoding"),  # type: ignore[arg-type]
        (pb.EmbedOptions(truncation=-1), "options.truncation"),  # type: ignore[arg-type]
    ],
)
def test_an_unknown_choice_is_refused(options: pb.EmbedOptions, field: str) -> None:
    request = pb.EmbedRequest(model="minilm", texts=[""], options=options)
    assert fields_of(lambda: check_embed(request)) == ["texts[0]", field]
    opening = pb.EmbedStreamRequest(model="minilm", options=options)
    assert fields_of(lambda: check_stream_opening(opening)) == [field]


def test_no_more_dimensions_than_the_model_has() -> None:
    model = spec("feature-extraction", dimensions=384)
    check_embed_fits(pb.EmbedOptions(dimensions=384), model)
    assert violations_of(lambda: check_embed_fits(pb.EmbedOptions(dimensions=385), model)) == [
        ("options.dimensions", "is 385; the model gives 384")
    ]


OPENING = pb.EmbedStreamRequest(
    model="minilm", model_version="1", options=pb.EmbedOptions(dimensions=3), texts=["x"]
)


def test_a_stream_opens_with_a_model() -> None:
    check_stream_opening(OPENING)
    assert fields_of(lambda: check_stream_opening(pb.EmbedStreamRequest(texts=["x"]))) == ["model"]


def test_a_group_may_repeat_the_opening_and_not_change_it() -> None:
    repeated = pb.EmbedStreamRequest(group_id="2", texts=["y"])
    check_group(OPENING, OPENING)
    check_group(repeated, OPENING)
    repeated.MergeFrom(OPENING)
    check_group(repeated, OPENING)
    other = pb.EmbedStreamRequest(
        model="other",
        model_version="2",
        tier=metadata_pb2.SERVICE_TIER_BATCH,
        options=pb.EmbedOptions(),
        texts=["x"],
    )
    assert violations_of(lambda: check_group(other, OPENING)) == [
        (field, "is the first message's to choose")
        for field in ("model", "model_version", "tier", "options")
    ]


def test_a_group_has_texts_and_a_short_name() -> None:
    request = pb.EmbedStreamRequest(group_id="x" * 257, texts=[])
    assert fields_of(lambda: check_group(request, OPENING)) == ["group_id", "texts"]
