"""What a request of InferenceService may hold."""

from __future__ import annotations

from gateway.validation.fields import (
    Violations,
    check_count,
    check_enum,
    check_model,
    check_text,
    check_texts,
    check_unit_interval,
)
from gateway.validation.images import check_images
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.packages import ModelSpec

MAX_ROWS = 10_000
"""Rows of one Predict call."""
MAX_TEXTS = 1_000
"""Texts of one Classify or ExtractEntities call."""
MAX_IMAGES = 64
"""Images of one Classify or DetectObjects call."""
MAX_CHAT_MESSAGES = 1_000
"""Turns of one chat."""
MAX_NEW_TOKENS = 32_768
"""Tokens of one generation."""
MAX_TEMPERATURE = 2.0
"""Sampling temperature."""
MAX_STOP_TEXTS = 16
"""Texts that end a generation."""
MAX_STOP_CHARACTERS = 256
"""Characters of one of them."""

_FLOAT_BYTES = 4


def check_predict(request: pb.PredictRequest) -> None:
    """Checks all that needs no model. Raises InvalidArgument."""
    violations = Violations()
    check_model(request, violations)
    shape = request.WhichOneof("input")
    if shape == "matrix":
        _check_matrix(request.matrix, violations)
    elif shape == "rows":
        check_count("rows.rows", len(request.rows.rows), MAX_ROWS, violations)
    else:
        violations.add("rows", "give rows or a matrix")
    violations.refuse()


def check_classify(request: pb.ClassifyRequest) -> None:
    """Checks all that needs no model. Raises InvalidArgument."""
    violations = Violations()
    check_model(request, violations)
    if request.images:
        if request.texts:
            violations.add("images", "give texts or images, not both")
        check_images("images", request.images, MAX_IMAGES, violations)
    elif request.texts:
        check_texts("texts", request.texts, MAX_TEXTS, violations)
    else:
        violations.add("texts", "give texts or images")
    violations.refuse()


def check_classify_fits(request: pb.ClassifyRequest, spec: ModelSpec) -> None:
    """Checks that the model reads what the request gives. Raises InvalidArgument."""
    reads_images = spec.task == "image-classification"
    if reads_images == bool(request.images):
        return
    violations = Violations()
    if reads_images:
        violations.add("texts", f"model {spec.name!r} reads images, not texts")
    else:
        violations.add("images", f"model {spec.name!r} reads texts, not images")
    violations.refuse()


def check_extract_entities(request: pb.ExtractEntitiesRequest) -> None:
    """Raises InvalidArgument."""
    violations = Violations()
    check_model(request, violations)
    check_texts("texts", request.texts, MAX_TEXTS, violations)
    check_unit_interval("min_score", request.min_score, violations)
    violations.refuse()


def check_detect_objects(request: pb.DetectObjectsRequest) -> None:
    """Raises InvalidArgument."""
    violations = Violations()
    check_model(request, violations)
    check_images("images", request.images, MAX_IMAGES, violations)
    check_unit_interval("min_score", request.min_score, violations)
    violations.refuse()


def check_generate(request: pb.GenerateRequest) -> None:
    """Raises InvalidArgument."""
    violations = Violations()
    check_model(request, violations)
    if request.messages:
        if request.prompt:
            violations.add("messages", "give a prompt or messages, not both")
        _check_chat(request, violations)
    elif request.prompt:
        check_text("prompt", request.prompt, violations)
    else:
        violations.add("prompt", "give a prompt or messages")
    if request.HasField("parameters"):
        _check_parameters(request.parameters, violations)
    violations.refuse()


def check_generate_fits(request: pb.GenerateRequest, spec: ModelSpec) -> None:
    """Checks that the model reads what the request gives. Raises InvalidArgument."""
    if request.messages and spec.runtime == "vllm":
        violations = Violations()
        violations.add("messages", f"model {spec.name!r} reads prompts, not chats")
        violations.refuse()


def _check_matrix(matrix: pb.FeatureMatrix, violations: Violations) -> None:
    rows, columns = matrix.rows, matrix.columns
    if not columns:
        violations.add("matrix.columns", "is 0")
    if not 0 < rows <= MAX_ROWS:
        violations.add("matrix.rows", f"is {rows:,}; 1 to {MAX_ROWS:,} are allowed")
        return
    expected = rows * columns * _FLOAT_BYTES
    if len(matrix.data) != expected:
        violations.add(
            "matrix.data",
            f"has {len(matrix.data):,} bytes; {rows:,} rows x {columns:,} columns"
            f" x {_FLOAT_BYTES} bytes make {expected:,}",
        )


def _check_chat(request: pb.GenerateRequest, violations: Violations) -> None:
    if not check_count("messages", len(request.messages), MAX_CHAT_MESSAGES, violations):
        return
    for index, message in enumerate(request.messages):
        field = f"messages[{index}]"
        if message.role == pb.CHAT_ROLE_UNSPECIFIED:
            violations.add(f"{field}.role", "is required")
        else:
            check_enum(f"{field}.role", message.role, pb.CHAT_ROLE_ASSISTANT, violations)
        check_text(f"{field}.content", message.content, violations)


def _check_parameters(given: pb.GenerationParameters, violations: Violations) -> None:
    if given.HasField("max_tokens") and not 1 <= given.max_tokens <= MAX_NEW_TOKENS:
        violations.add(
            "parameters.max_tokens", f"is {given.max_tokens:,}; 1 to {MAX_NEW_TOKENS:,} are allowed"
        )
    if given.HasField("temperature") and not 0.0 <= given.temperature <= MAX_TEMPERATURE:
        violations.add(
            "parameters.temperature",
            f"{given.temperature:g} is not between 0 and {MAX_TEMPERATURE:g}",
        )
    if given.HasField("top_p"):
        check_unit_interval("parameters.top_p", given.top_p, violations)
    if len(given.stop) > MAX_STOP_TEXTS:
        violations.add(
            "parameters.stop",
            f"has {len(given.stop):,} items; at most {MAX_STOP_TEXTS} are allowed",
        )
        return
    for index, stop in enumerate(given.stop):
        if not 0 < len(stop) <= MAX_STOP_CHARACTERS:
            violations.add(
                f"parameters.stop[{index}]",
                f"has {len(stop):,} characters; 1 to {MAX_STOP_CHARACTERS} are allowed",
            )
