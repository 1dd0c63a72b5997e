"""Finds labelled spans in texts of any length with AutoModelForTokenClassification checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForTokenClassification

from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Outputs
from workers.runtimes.spans import SpanLabels, Token, join_windows
from workers.runtimes.tokens import TextReader
from workers.runtimes.torch_session import WEIGHTS, TorchSession
from workers.runtimes.triton_model import RowsTritonModel

OVERLAP_SHARE = 4
"""Neighbouring windows of a long text share a quarter of their tokens."""


@dataclasses.dataclass(frozen=True)
class Window:
    """As much of one text as a forward pass takes."""

    inputs: Mapping[str, list[int]]
    offsets: Sequence[tuple[int, int]]
    """Start and end of each token, in code points of the text."""
    words: Sequence[int | None]
    """Each token's word; None for special tokens."""

    def tokens(self, scores: NDArray[np.float32]) -> list[Token]:
        """The text's own tokens with their scores [tokens, labels]."""
        return [
            Token(start, end, word, scores[position])
            for position, ((start, end), word) in enumerate(
                zip(self.offsets, self.words, strict=True)
            )
            if word is not None
        ]


class TokenClassifier:
    """Texts to ``entities`` BYTES [1] (JSON spans) and ``tokens`` INT32 [1], the tokens read.

    A text longer than one forward pass is read in overlapping windows, up to the package's
    max_tokens.
    """

    def __init__(self, launch: Launch) -> None:
        self._session = TorchSession(launch)
        model: Any = AutoModelForTokenClassification.from_pretrained(launch.package, **WEIGHTS)
        self._reader = TextReader(launch, model.config)
        if not self._reader.tokenizer.is_fast:
            raise ValueError("the tokenizer gives no offsets: a tokenizer.json is needed")
        self._labels = SpanLabels(model.config.id2label)
        if sorted(launch.spec.labels) != self._labels.names:
            raise ValueError(f"the model finds {self._labels.names}, not what model.yaml says")
        self._special = self._reader.tokenizer.num_special_tokens_to_add()
        self._longest_text = (launch.spec.max_tokens or self._reader.max_tokens) - self._special
        self._window = self._reader.max_tokens - self._special
        self._overlap = self._window // OVERLAP_SHARE
        self._model = self._session.place(model)
        self.read = self._reader.read

    def run(self, rows: Sequence[str]) -> Outputs:
        """Spans in the order of the rows."""
        windows = self._windows(rows)
        scores = self._scores([window for of_text in windows for window in of_text])
        entities = np.empty((len(rows), 1), np.object_)
        read = np.empty((len(rows), 1), np.int32)
        for row, text in enumerate(rows):
            pieces = [window.tokens(next(scores)) for window in windows[row]]
            tokens = join_windows(pieces, self._overlap)[: self._longest_text]
            spans = self._labels.find(text, tokens)
            entities[row, 0] = json.dumps([dataclasses.asdict(span) for span in spans]).encode()
            read[row, 0] = len(tokens) + self._special
        return {"entities": entities, "tokens": read}

    def _windows(self, texts: Sequence[str]) -> list[list[Window]]:
        """The windows of each text; none for a text without a word."""
        encoded = self._reader.tokenizer(
            list(texts),
            truncation=True,
            max_length=self._reader.max_tokens,
            stride=self._overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        offsets = encoded.pop("offset_mapping")
        windows: list[list[Window]] = [[] for _ in texts]
        for index, row in enumerate(encoded.pop("overflow_to_sample_mapping")):
            words = encoded.word_ids(index)
            starts_at = len(windows[row]) * (self._window - self._overlap)
            if starts_at < self._longest_text and any(word is not None for word in words):
                inputs = {name: encoded[name][index] for name in encoded}
                windows[row].append(Window(inputs, offsets[index], words))
        return windows

    def _scores(self, windows: Sequence[Window]) -> Iterator[NDArray[np.float32]]:
        """Label probabilities [tokens, labels] of each window, padding included."""
        scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(windows)
        batches = self._reader.batches([window.inputs for window in windows], self._session)
        with self._session.inference():
            for group, batch in batches:
                logits = self._model(**self._session.move(batch)).logits.float()
                for index, window in zip(group, logits.softmax(dim=-1).cpu().numpy(), strict=True):
                    scores[index] = window
        return iter(scores)


class TritonPythonModel(RowsTritonModel):
    """Triton's entry point."""

    input_name = "text"
    model_class = TokenClassifier
