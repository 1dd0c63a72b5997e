"""Turns texts into vectors with any AutoModel encoder, pooled as its checkpoint says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoModel

from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Outputs
from workers.runtimes.sentence_layout import read_layout
from workers.runtimes.tokens import TextReader
from workers.runtimes.torch_session import WEIGHTS, TorchSession
from workers.runtimes.triton_model import RowsTritonModel


class TextEmbedder:
    """Texts to ``embedding`` FP32 [dimensions], ``tokens`` and ``total_tokens`` INT32 [1].

    ``tokens`` were read; ``total_tokens`` is the length of the whole text, before truncation.
    """

    def __init__(self, launch: Launch) -> None:
        self._session = TorchSession(launch)
        self._layout = read_layout(launch.package, self._session.device)
        model: Any = AutoModel.from_pretrained(self._layout.encoder, **WEIGHTS)
        self._reader = TextReader(
            launch, model.config, directory=self._layout.encoder, max_tokens=self._layout.max_tokens
        )
        self._dimensions = launch.spec.dimensions
        self._model = self._session.place(model)
        self.read = self._reader.read

    def run(self, rows: Sequence[str]) -> Outputs:
        """Vectors in the order of the rows."""
        tokenized = self._reader.tokenize(rows)
        embedding = np.empty((len(rows), self._dimensions), np.float32)
        inputs = [text.inputs for text in tokenized]
        with self._session.inference():
            for group, batch in self._reader.batches(inputs, self._session):
                moved = self._session.move(batch)
                hidden = self._model(**moved).last_hidden_state.float()
                vectors = self._layout.vectors(hidden, moved["attention_mask"])
                embedding[group] = vectors.float().cpu().numpy()
        return {
            "embedding": embedding,
            "tokens": np.array([[len(text)] for text in tokenized], np.int32),
            "total_tokens": np.array([[text.total] for text in tokenized], np.int32),
        }


class TritonPythonModel(RowsTritonModel):
    """Triton's entry point."""

    input_name = "text"
    model_class = TextEmbedder
