"""Token labels to spans of text: BIO and its relatives, words kept whole, windows joined.

Offsets are code points of the text, as Python counts them. A word takes the label of its first
token with a letter or digit, because most checkpoints are trained on the first token only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

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
class Piece:
    """What one label covers: the core of a word, or a token of punctuation beside it."""

    start: int
    end: int
    scores: NDArray[np.float32]
    """Those of its first token."""
    starts_word: bool


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
        runs: list[tuple[str, list[Piece]]] = []
        for piece in pieces(text, tokens):
            prefix, name = self._parts[int(piece.scores.argmax())]
            begins = prefix in BEGINS and piece.starts_word
            if runs and runs[-1][0] == name and not begins:
                runs[-1][1].append(piece)
            else:
                runs.append((name, [piece]))
        spans = [self._span(name, run) for name, run in runs if name != OUTSIDE]
        return [kept for span in spans for kept in trimmed(text, span)]

    def _span(self, name: str, run: Sequence[Piece]) -> Span:
        columns = self._columns[name]
        score = float(np.mean([piece.scores[columns].sum() for piece in run]))
        return Span(run[0].start, run[-1].end, name, score)


def pieces(text: str, tokens: Sequence[Token]) -> Iterator[Piece]:
    """Cuts words into their core, from the first to the last letter or digit, and each token of
    punctuation around it: some tokenizers split at spaces only, so that words carry commas.
    """
    for _, group in groupby(tokens, key=lambda token: token.word):
        word = list(group)
        core = [at for at, token in enumerate(word) if is_worded(text, token)]
        ends = {at: at for at in range(len(word)) if not core or not core[0] <= at <= core[-1]}
        if core:
            ends[core[0]] = core[-1]
        for begin, last in sorted(ends.items()):
            token = word[begin]
            yield Piece(token.start, word[last].end, token.scores, starts_word=begin == 0)


def split_label(label: str) -> tuple[str, str]:
    """``B-person`` to (``B``, ``person``); a label without a prefix goes on with its like."""
    prefix, dash, name = label.partition("-")
    if dash and name and prefix in PREFIXES:
        return prefix, name
    return "I", label


def is_worded(text: str, token: Token) -> bool:
    """Whether a token holds a letter or digit."""
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
