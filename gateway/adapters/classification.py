"""Classify: texts or images to one BYTES tensor, and scores back to ranked labels."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from gateway.adapters.usage import image_usage, token_usage
from gateway.dispatch import Answer
from gateway.tensors import Tensor, bytes_tensor, read_floats
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.service.packages import ModelSpec

TASKS = frozenset({"text-classification", "image-classification"})


def text_tensor(texts: Sequence[str]) -> Tensor:
    """The input of a model that reads texts."""
    return bytes_tensor("text", [text.encode() for text in texts])


def classify_tensor(request: pb.ClassifyRequest) -> Tensor:
    """The input of a model that reads what the request gives."""
    if request.images:
        return bytes_tensor("image", [image.data for image in request.images])
    return text_tensor(request.texts)


def rankings(answer: Answer, spec: ModelSpec, top_k: int) -> tuple[list[pb.Classification], float]:
    """One ranking an input, best first (0 keeps all labels), and the lowest of the best scores."""
    scores = read_floats(answer.outputs["scores"])
    width = len(spec.labels)
    keep = min(top_k, width) or width
    found = []
    lowest = 1.0
    for start in range(0, len(scores), width):
        row = scores[start : start + width]
        pairs = zip(spec.labels, row, strict=True)
        if keep == 1:
            ranked = [max(pairs, key=_SCORE)]
        else:
            ranked = sorted(pairs, key=_SCORE, reverse=True)[:keep]
        lowest = min(lowest, ranked[0][1])
        found.append(
            pb.Classification(
                labels=[pb.RankedLabel(label=label, confidence=score) for label, score in ranked]
            )
        )
    return found, lowest


def classify_usage(answer: Answer, spec: ModelSpec, inputs: int) -> metadata_pb2.Usage:
    """Tokens of the texts, or images."""
    if spec.task == "image-classification":
        return image_usage(inputs)
    return token_usage(answer)


_SCORE = itemgetter(1)
