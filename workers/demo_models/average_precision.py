"""How well detections fit the truth: average precision as in PASCAL VOC (all points), and F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OVERLAP = 0.5
"""Least intersection over union of a detection with the object it claims."""
SURE = 0.5
"""Score from which a detection counts towards F1."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Truth = tuple[int, str, Box]
"""Number of the image, label, box."""


@dataclass(frozen=True)
class Found:
    """One detection."""

    image: int
    label: str
    score: float
    box: Box


def average_precision(found: Sequence[Found], truth: Sequence[Truth]) -> dict[str, float]:
    """``map_50`` over all labels of the truth, and ``f1_50``."""
    precisions, hits, claims = [], 0, 0
    for label in sorted({label for _, label, _ in truth}):
        wanted = [(image, box) for image, other, box in truth if other == label]
        ranked = sorted((one for one in found if one.label == label), key=lambda one: -one.score)
        right = np.array(claimed(ranked, wanted), dtype=np.float64)
        precisions.append(area_under(right, len(wanted)))
        sure = sum(one.score >= SURE for one in ranked)
        hits, claims = hits + int(right[:sure].sum()), claims + sure
    return {
        "map_50": float(np.mean(precisions)),
        "f1_50": 2.0 * hits / (claims + len(truth)),
    }


def claimed(ranked: Sequence[Found], wanted: Sequence[tuple[int, Box]]) -> list[bool]:
    """Whether each detection, best first, claims an object that is not taken yet."""
    taken: set[int] = set()
    right = []
    for one in ranked:
        overlaps = [
            (overlap(one.box, box), index)
            for index, (image, box) in enumerate(wanted)
            if image == one.image and index not in taken
        ]
        best, index = max(overlaps, default=(0.0, -1))
        right.append(best >= OVERLAP)
        if best >= OVERLAP:
            taken.add(index)
    return right


def area_under(right: np.ndarray[tuple[int], np.dtype[np.float64]], wanted: int) -> float:
    """Area under the precision-recall curve, precision made monotonous from the right."""
    hits = np.cumsum(right)
    recall = np.concatenate([[0.0], hits / wanted])
    precision = hits / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * highest).sum())


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)
