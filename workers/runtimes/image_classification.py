"""Ranks labels for images with any checkpoint that AutoModelForImageClassification loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageClassification

from workers.runtimes.class_scores import (
    check_labels,
    probabilities,
    scores_are_independent,
)
from workers.runtimes.images import ImageReader, decode_image, equal_shapes
from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Outputs
from workers.runtimes.torch_session import WEIGHTS, TorchSession
from workers.runtimes.triton_model import RowsTritonModel


class ImageClassifier:
    """Images to ``scores`` FP32 [labels]."""

    def __init__(self, launch: Launch) -> None:
        self._session = TorchSession(launch)
        model: Any = AutoModelForImageClassification.from_pretrained(launch.package, **WEIGHTS)
        self._images = ImageReader(launch)
        self._labels = check_labels(launch.spec.labels, model.config)
        self._independent = scores_are_independent(model.config)
        self._model = self._session.place(model)

    def read(self, value: object) -> dict[str, torch.Tensor]:
        """The model's inputs for one encoded image. Raises Refusal."""
        return self._images.pixels(decode_image(value))

    def run(self, rows: Sequence[dict[str, torch.Tensor]]) -> Outputs:
        """Scores in the order of the rows."""
        scores = np.empty((len(rows), self._labels), np.float32)
        with self._session.inference():
            for group, batch in equal_shapes(rows, self._session.images):
                logits = self._model(**self._session.move(batch)).logits.float()
                scores[group] = probabilities(logits, self._independent).cpu().numpy()
        return {"scores": scores}


class TritonPythonModel(RowsTritonModel):
    """Triton's entry point."""

    input_name = "image"
    model_class = ImageClassifier
