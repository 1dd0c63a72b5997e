"""ExtractEntities: the spans that a token-classification model found, as entities."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gateway.dispatch import Answer
from gateway.tensors import read_bytes
from penstock.api.inference.v1 import inference_pb2 as pb

TASKS = frozenset({"token-classification"})


def entity_lists(
    answer: Answer, texts: Sequence[str], min_score: float
) -> tuple[list[pb.EntityList], float | None]:
    """One list a text, in its order, and the lowest of the best scores.

    The model's offsets count code points, as Python's do, so each span is cut out of its text.
    """
    found = []
    best_scores = []
    for text, encoded in zip(texts, read_bytes(answer.outputs["entities"]), strict=True):
        kept = [span for span in json.loads(encoded) if span["score"] >= min_score]
        kept.sort(key=_place)
        if kept:
            best_scores.append(max(span["score"] for span in kept))
        found.append(
            pb.EntityList(
                entities=[
                    pb.Entity(
                        label=span["label"],
                        text=text[span["start"] : span["end"]],
                        start=span["start"],
                        end=span["end"],
                        score=span["score"],
                    )
                    for span in kept
                ]
            )
        )
    return found, min(best_scores, default=None)


def _place(span: dict[str, int]) -> tuple[int, int]:
    return span["start"], span["end"]
