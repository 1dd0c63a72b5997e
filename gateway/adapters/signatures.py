"""The tensors that a model of each task takes and gives."""

from __future__ import annotations

from typing import NamedTuple

from penstock.service.packages import ModelSpec

GENERATION = "text-generation"
"""The one task whose models stream, and have no batch axis."""


class TensorSpec(NamedTuple):
    """One input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """Of one row: without the batch axis."""
    optional: bool = False


class Signature(NamedTuple):
    """All inputs and outputs of a model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool
    """Whether every tensor's first axis counts rows."""


_TEXT = TensorSpec("text", "BYTES", (1,))
_IMAGE = TensorSpec("image", "BYTES", (1,))
_TOKENS = TensorSpec("tokens", "INT32", (1,))
_GENERATION = Signature(
    (
        TensorSpec("text_input", "BYTES", (1,), optional=True),
        TensorSpec("messages", "BYTES", (1,), optional=True),
        TensorSpec("stream", "BOOL", (1,), optional=True),
        TensorSpec("sampling_parameters", "BYTES", (1,), optional=True),
    ),
    (
        TensorSpec("text_output", "BYTES", (1,)),
        TensorSpec("finish_reason", "BYTES", (1,)),
        TensorSpec("num_input_tokens", "UINT32", (1,)),
        TensorSpec("num_output_tokens", "UINT32", (1,)),
    ),
    batched=False,
)


def signature_of(spec: ModelSpec) -> Signature:
    """The tensors of a model; raises ValueError for a task that has none."""
    if spec.task == GENERATION:
        return _GENERATION
    if spec.task.startswith("tabular-"):
        inputs: tuple[TensorSpec, ...] = (TensorSpec("features", "FP32", (len(spec.features),)),)
    else:
        inputs = (_IMAGE if spec.task in ("image-classification", "object-detection") else _TEXT,)
    return Signature(inputs, _outputs(spec), batched=True)


def _outputs(spec: ModelSpec) -> tuple[TensorSpec, ...]:
    scores = TensorSpec("scores", "FP32", (len(spec.labels),))
    match spec.task:
        case "text-classification":
            return scores, _TOKENS
        case "image-classification" | "tabular-classification":
            return (scores,)
        case "tabular-regression":
            return (TensorSpec("value", "FP32", (1,)),)
        case "token-classification":
            return TensorSpec("entities", "BYTES", (1,)), _TOKENS
        case "object-detection":
            return (TensorSpec("detections", "BYTES", (1,)),)
        case "feature-extraction":
            embedding = TensorSpec("embedding", "FP32", (spec.dimensions,))
            return embedding, _TOKENS, TensorSpec("total_tokens", "INT32", (1,))
    raise ValueError(f"no signature for {spec.task}")
