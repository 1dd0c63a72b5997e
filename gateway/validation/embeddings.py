"""What a request of EmbeddingsService may hold."""

from __future__ import annotations

from gateway.validation.fields import Violations, check_enum, check_model, check_texts
from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.service.packages import ModelSpec

MAX_TEXTS = 2_048
"""Texts of one call, or of one group of a stream."""
MAX_GROUP_ID_CHARACTERS = 256
"""Characters of the name that a caller gives a group."""


def check_embed(request: pb.EmbedRequest) -> None:
    """Checks all that needs no model. Raises InvalidArgument."""
    violations = Violations()
    check_model(request, violations)
    check_texts("texts", request.texts, MAX_TEXTS, violations)
    if request.HasField("options"):
        _check_options(request.options, violations)
    violations.refuse()


def check_embed_fits(options: pb.EmbedOptions, spec: ModelSpec) -> None:
    """Checks that the model can give what the options ask for. Raises InvalidArgument."""
    if options.dimensions <= spec.dimensions:
        return
    violations = Violations()
    violations.add(
        "options.dimensions", f"is {options.dimensions:,}; the model gives {spec.dimensions:,}"
    )
    violations.refuse()


def check_stream_opening(request: pb.EmbedStreamRequest) -> None:
    """Checks what the first message says for the whole stream. Raises InvalidArgument."""
    violations = Violations()
    check_model(request, violations)
    if request.HasField("options"):
        _check_options(request.options, violations)
    violations.refuse()


def check_group(request: pb.EmbedStreamRequest, opening: pb.EmbedStreamRequest) -> None:
    """Checks one group, which may repeat the first message's choices. Raises InvalidArgument."""
    violations = Violations()
    if request is not opening:
        if request.model and request.model != opening.model:
            violations.add("model", "is the first message's to choose")
        if request.model_version and request.model_version != opening.model_version:
            violations.add("model_version", "is the first message's to choose")
        if request.tier and request.tier != opening.tier:
            violations.add("tier", "is the first message's to choose")
        if request.HasField("options") and request.options != opening.options:
            violations.add("options", "is the first message's to choose")
    if len(request.group_id) > MAX_GROUP_ID_CHARACTERS:
        violations.add(
            "group_id",
            f"has {len(request.group_id):,} characters;"
            f" at most {MAX_GROUP_ID_CHARACTERS} are allowed",
        )
    check_texts("texts", request.texts, MAX_TEXTS, violations)
    violations.refuse()


def _check_options(options: pb.EmbedOptions, violations: Violations) -> None:
    check_enum("options.encoding", options.encoding, pb.VECTOR_ENCODING_PACKED, violations)
    check_enum("options.truncation", options.truncation, pb.TRUNCATION_END, violations)
