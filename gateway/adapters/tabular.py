"""Predict: feature rows to one float matrix, and scores or values back to predictions."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.dispatch import Answer
from gateway.tensors import Tensor, read_floats
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.packages import ModelSpec

TASKS = frozenset({"tabular-classification", "tabular-regression"})


def features_tensor(values: bytes, spec: ModelSpec) -> Tensor:
    """The input of a tabular model from rows x features little-endian 32-bit floats."""
    return Tensor("features", "FP32", (len(spec.features),), values)


def predictions(answer: Answer, spec: ModelSpec) -> tuple[list[pb.Prediction], float | None]:
    """One prediction a row, and the lowest of the best scores (None for regression)."""
    if spec.task == "tabular-regression":
        return [pb.Prediction(score=value) for value in read_floats(answer.outputs["value"])], None
    return _classified(read_floats(answer.outputs["scores"]), spec.labels)


def _classified(
    scores: Sequence[float], labels: Sequence[str]
) -> tuple[list[pb.Prediction], float]:
    width = len(labels)
    found = []
    lowest = 1.0
    for start in range(0, len(scores), width):
        row = scores[start : start + width]
        best = max(row)
        lowest = min(lowest, best)
        found.append(
            pb.Prediction(
                label=labels[list(row).index(best)],
                score=best,
                probabilities=[
                    pb.LabelProbability(label=label, probability=score)
                    for label, score in zip(labels, row, strict=True)
                ],
            )
        )
    return found, lowest
