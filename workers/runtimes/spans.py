"""Token labels to spans of text: BIO and its relatives, words kept whole, windows joined.

Offsets are code points of the text, as Python counts them. A word takes the label of its first
token, because most checkpoints are trained on that one only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BEGINS = frozenset("BSU")
"""Prefixes that open a span: Begin, Single, Unit. Any other goes on with an open one."""
PREFIXES = BEGINS | frozenset("IELM")
OUTSIDE = "O"


@dataclass(frozen=True)
class Token:
    """One token of the text and what the model says about it."""

    start: int
    end: int
    word: int
    """Number of its word in the text; tokens of one word share it."""
    scores: NDArray[np.float32]
    """Probability of each of the checkpoint's labels."""


@dataclass(frozen=True)
class Span:
    """A labelled piece of the text."""

    start: int
    end: int
    label: str
    score: float


class SpanLabels:
    """A checkpoint's token labels, taken apart into prefix and span label."""

    def __init__(self, id2label: Mapping[int, str]) -> None:
        self._parts = [split_label(id2label[index]) for index in range(len(id2label))]
        self.names = sorted({name for _, name in self._parts} - {OUTSIDE})
        """The labels that spans can carry."""
        self._columns = {
            name: [i for i, (_, other) in enumerate(self._parts) if other == name]
            for name in [*self.names, OUTSIDE]
        }

    def find(self, text: str, tokens: Sequence[Token]) -> list[Span]:
        """The spans of one text, in its order. A span's score is the mean over its words."""
        spans: list[Span] = []
        open_name, words, start, end = OUTSIDE, list[float](), 0, 0

        def close() -> None:
            if open_name != OUTSIDE:
                spans.extend(trimmed(text, Span(start, end, open_name, float(np.mean(words)))))

        previous: Token | None = None
        for token in tokens:
            goes_on = previous is not None and token.word == previous.word
            if goes_on and is_worded(text, token):
                end = token.end
            else:
                prefix, name = self._parts[int(token.scores.argmax())]
                if name != open_name or (prefix in BEGINS and not goes_on):
                    close()
                    open_name, words, start = name, [], token.start
                end = token.end
                words.append(float(token.scores[self._columns[name]].sum()))
            previous = token
        close()
        return spans


def split_label(label: str) -> tuple[str, str]:
    """``B-person`` to (``B``, ``person``); a label without a prefix goes on with its like."""
    prefix, dash, name = label.partition("-")
    if dash and name and prefix in PREFIXES:
        return prefix, name
    return "I", label


def is_worded(text: str, token: Token) -> bool:
    """Whether a token holds a letter or digit, so that it belongs to its word.

    Tokenizers that split at spaces only count a comma as part of the word before it.
    """
    return any(character.isalnum() for character in text[token.start : token.end])


def trimmed(text: str, span: Span) -> list[Span]:
    """The span without spaces at its ends; none when nothing is left."""
    piece = text[span.start : span.end]
    start = span.start + len(piece) - len(piece.lstrip())
    end = span.end - (len(piece) - len(piece.rstrip()))
    return [Span(start, end, span.label, min(span.score, 1.0))] if start < end else []


def join_windows(windows: Sequence[Sequence[Token]], overlap: int) -> list[Token]:
    """One list of tokens from windows of a long text, each of which shares ``overlap`` tokens with
    the one before: of those, each window keeps the half that lies deeper inside it."""
    joined: list[Token] = []
    for number, window in enumerate(windows):
        last = number == len(windows) - 1
        begin = overlap // 2 if number else 0
        stop = len(window) if last else len(window) - (overlap - overlap // 2)
        joined.extend(window[begin:stop])
    return joined
