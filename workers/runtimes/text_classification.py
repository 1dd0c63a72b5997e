"""Ranks labels for texts with any checkpoint that AutoModelForSequenceClassification loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification

from workers.runtimes.class_scores import (
    check_labels,
    probabilities,
    scores_are_independent,
)
from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Outputs
from workers.runtimes.tokens import TextReader
from workers.runtimes.torch_session import WEIGHTS, TorchSession
from workers.runtimes.triton_model import RowsTritonModel


class TextClassifier:
    """Texts to ``scores`` FP32 [labels] and ``tokens`` INT32 [1], the number of tokens read."""

    def __init__(self, launch: Launch) -> None:
        self._session = TorchSession(launch)
        model: Any = AutoModelForSequenceClassification.from_pretrained(launch.package, **WEIGHTS)
        self._reader = TextReader(launch, model.config)
        self._labels = check_labels(launch.spec.labels, model.config)
        self._independent = scores_are_independent(model.config)
        if model.config.pad_token_id is None:
            # Decoder-only classifiers look for the last token that is not this one.
            model.config.pad_token_id = self._reader.tokenizer.pad_token_id
        self._model = self._session.place(model)
        self.read = self._reader.read

    def run(self, rows: Sequence[str]) -> Outputs:
        """Scores in the order of the rows."""
        tokenized = self._reader.tokenize(rows)
        scores = np.empty((len(rows), self._labels), np.float32)
        with self._session.inference():
            inputs = [text.inputs for text in tokenized]
            for group, batch in self._reader.batches(inputs, self._session):
                logits = self._model(**self._session.move(batch)).logits.float()
                scores[group] = probabilities(logits, self._independent).cpu().numpy()
        return {"scores": scores, "tokens": np.array([[len(text)] for text in tokenized], np.int32)}


class TritonPythonModel(RowsTritonModel):
    """Triton's entry point."""

    input_name = "text"
    model_class = TextClassifier
