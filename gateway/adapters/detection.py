"""DetectObjects: the boxes that a detection model found, best first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gateway.dispatch import Answer
from gateway.tensors import Tensor, bytes_tensor, read_bytes
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.types.v1 import content_pb2

TASKS = frozenset({"object-detection"})


def image_tensor(images: Sequence[content_pb2.Image]) -> Tensor:
    """The input of a model that reads images."""
    return bytes_tensor("image", [image.data for image in images])


def detection_lists(
    answer: Answer, min_score: float, most: int
) -> tuple[list[pb.DetectionList], float | None]:
    """One list an image (0 for ``most`` keeps all), and the lowest of the best scores."""
    found = []
    best_scores = []
    for encoded in read_bytes(answer.outputs["detections"]):
        image = json.loads(encoded)
        kept = [one for one in image["detections"] if one["score"] >= min_score]
        kept.sort(key=_score, reverse=True)
        if most:
            del kept[most:]
        if kept:
            best_scores.append(kept[0]["score"])
        found.append(
            pb.DetectionList(
                detections=[_detection(one) for one in kept],
                width=image["width"],
                height=image["height"],
            )
        )
    return found, min(best_scores, default=None)


def _detection(one: dict[str, Any]) -> pb.Detection:
    x_min, y_min, x_max, y_max = one["box"]
    return pb.Detection(
        label=one["label"],
        score=one["score"],
        box=pb.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
    )


def _score(one: dict[str, Any]) -> float:
    score: float = one["score"]
    return score
