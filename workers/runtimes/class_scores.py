"""Logits to scores, for every task whose answer is a ranking of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def scores_are_independent(config: Any) -> bool:
    """Whether each label is a yes-or-no question of its own, rather than one choice among all."""
    return bool(config.problem_type == "multi_label_classification" or config.num_labels == 1)


def probabilities(logits: torch.Tensor, independent: bool) -> torch.Tensor:
    """Logits [rows, labels] to scores of 0 to 1."""
    return logits.sigmoid() if independent else logits.softmax(dim=-1)


def check_labels(labels: Sequence[str], config: Any) -> int:
    """The number of labels. Raises ValueError when package and checkpoint disagree."""
    if len(labels) != config.num_labels:
        raise ValueError(f"{len(labels)} labels, but the model scores {config.num_labels}")
    return len(labels)
