"""The tensors of each task, as gateways send them and runtimes answer them."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.service.packages import ModelSpec

GENERATION = "text-generation"
"""The one task whose models stream."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output of a model."""

    name: str
    datatype: str
    """As the Open Inference Protocol spells it."""
    shape: tuple[int, ...] = (1,)
    """Of one row; -1 leaves a length open."""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    streams: bool = False
    """Whether it answers one request with many messages, and batches by itself."""


_TEXT = TensorSpec("text", "BYTES")
_IMAGE = TensorSpec("image", "BYTES")
_TOKENS = TensorSpec("tokens", "INT32")

_GENERATION = Signature(
    inputs=(
        TensorSpec("text_input", "BYTES", optional=True),
        TensorSpec("messages", "BYTES", optional=True),
        TensorSpec("stream", "BOOL", optional=True),
        TensorSpec("sampling_parameters", "BYTES", optional=True),
    ),
    outputs=(
        TensorSpec("text_output", "BYTES"),
        TensorSpec("finish_reason", "BYTES"),
        TensorSpec("num_input_tokens", "UINT32"),
        TensorSpec("num_output_tokens", "UINT32"),
    ),
    streams=True,
)

_VLLM = Signature(
    # https://github.com/triton-inference-server/vllm_backend/blob/main/src/model.py
    inputs=(
        TensorSpec("text_input", "BYTES"),
        TensorSpec("stream", "BOOL", optional=True),
        TensorSpec("sampling_parameters", "BYTES", optional=True),
        TensorSpec("exclude_input_in_output", "BOOL", optional=True),
        TensorSpec("return_finish_reason", "BOOL", optional=True),
        TensorSpec("return_cumulative_logprob", "BOOL", optional=True),
        TensorSpec("return_logprobs", "BOOL", optional=True),
        TensorSpec("return_num_input_tokens", "BOOL", optional=True),
        TensorSpec("return_num_output_tokens", "BOOL", optional=True),
    ),
    outputs=(
        TensorSpec("text_output", "BYTES", (-1,)),
        TensorSpec("finish_reason", "BYTES", (-1,)),
        TensorSpec("cumulative_logprob", "FP32", (-1,)),
        TensorSpec("logprobs", "BYTES", (-1,)),
        TensorSpec("num_input_tokens", "UINT32"),
        TensorSpec("num_output_tokens", "UINT32", (-1,)),
    ),
    streams=True,
)


def signature(spec: ModelSpec) -> Signature:
    """The tensors of the package's task."""
    if spec.task == GENERATION:
        return _VLLM if spec.runtime == "vllm" else _GENERATION
    scores = TensorSpec("scores", "FP32", (len(spec.labels),))
    features = TensorSpec("features", "FP32", (len(spec.features),))
    embedding = TensorSpec("embedding", "FP32", (spec.dimensions,))
    entities = TensorSpec("entities", "BYTES")
    total = TensorSpec("total_tokens", "INT32")
    return {
        "text-classification": Signature((_TEXT,), (scores, _TOKENS)),
        "token-classification": Signature((_TEXT,), (entities, _TOKENS)),
        "tabular-classification": Signature((features,), (scores,)),
        "tabular-regression": Signature((features,), (TensorSpec("value", "FP32"),)),
        "image-classification": Signature((_IMAGE,), (scores,)),
        "object-detection": Signature((_IMAGE,), (TensorSpec("detections", "BYTES"),)),
        "feature-extraction": Signature((_TEXT,), (embedding, _TOKENS, total)),
    }[spec.task]
