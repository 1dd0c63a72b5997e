"""Token labels to spans of text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtimes.spans import SpanLabels, Token, join_windows, split_label

TAGS = ("O", "B-person", "I-person", "B-place", "I-place")
LABELS = SpanLabels(dict(enumerate(TAGS)))


def token(text: str, piece: str, word: int, tag: str, sure: float = 0.9, after: int = 0) -> Token:
    start = text.index(piece, after)
    scores = np.full(len(TAGS), (1 - sure) / (len(TAGS) - 1), np.float32)
    scores[TAGS.index(tag)] = sure
    return Token(start, start + len(piece), word, scores)


def found(text: str, *tokens: Token) -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.label) for span in LABELS.find(text, tokens)]


def test_words_of_one_name_make_one_span() -> None:
    text = "Ada Lovelace in London"
    tags = ["B-person", "I-person", "O", "B-place"]
    tokens = [token(text, word, i, tags[i]) for i, word in enumerate(text.split())]
    assert found(text, *tokens) == [("Ada Lovelace", "person"), ("London", "place")]


def test_a_beginning_inside_a_name_starts_another() -> None:
    text = "Ada Bob"
    tokens = [token(text, "Ada", 0, "B-person"), token(text, "Bob", 1, "B-person")]
    assert found(text, *tokens) == [("Ada", "person"), ("Bob", "person")]


def test_an_inside_without_a_beginning_still_makes_a_span() -> None:
    text = "to Paris"
    assert found(text, token(text, "to", 0, "O"), token(text, "Paris", 1, "I-place")) == [
        ("Paris", "place")
    ]


def test_a_word_takes_the_label_of_its_first_token() -> None:
    text = "Lovelace"
    tokens = [token(text, "Love", 0, "B-person"), token(text, "lace", 0, "B-place")]
    assert found(text, *tokens) == [("Lovelace", "person")]


def test_a_comma_glued_to_a_word_is_left_out() -> None:
    text = "Paris, yes"
    tokens = [token(text, "Paris", 0, "B-place"), token(text, ",", 0, "O")]
    assert found(text, *tokens) == [("Paris", "place")]


def test_a_bracket_glued_to_a_word_does_not_hide_it() -> None:
    text = "(Paris)"
    tokens = [
        token(text, "(", 0, "O"),
        token(text, "Paris", 0, "B-place"),
        token(text, ")", 0, "O"),
    ]
    assert found(text, *tokens) == [("Paris", "place")]


def test_dots_inside_a_word_belong_to_it() -> None:
    text = "U.S. law"
    tokens = [
        Token(0, 1, 0, token(text, "U", 0, "B-place").scores),
        Token(1, 2, 0, token(text, ".", 0, "O").scores),
        Token(2, 3, 0, token(text, "S", 0, "O").scores),
        Token(3, 4, 0, token(text, ".", 0, "I-place").scores),
        token(text, "law", 1, "O"),
    ]
    assert found(text, *tokens) == [("U.S.", "place")]


def test_a_sign_that_is_no_word_takes_its_own_label() -> None:
    text = "to 🗼 now"
    tags = ["O", "B-place", "O"]
    tokens = [token(text, word, i, tags[i]) for i, word in enumerate(text.split())]
    assert found(text, *tokens) == [("🗼", "place")]


def test_a_span_has_no_space_at_its_ends() -> None:
    text = "in  Paris "
    spaced = Token(2, 10, 0, token(text, "Paris", 0, "B-place").scores)
    (span,) = LABELS.find(text, [spaced])
    assert (span.start, span.end) == (4, 9)


def test_the_score_is_the_mean_over_words_of_both_prefixes_together() -> None:
    text = "Ada Lovelace"
    tokens = [token(text, "Ada", 0, "B-person", 0.8), token(text, "Lovelace", 1, "I-person", 0.6)]
    (span,) = LABELS.find(text, tokens)
    assert span.score == pytest.approx((0.85 + 0.7) / 2)


def test_labels_are_taken_apart() -> None:
    assert split_label("B-PER") == ("B", "PER")
    assert split_label("S-LOC") == ("S", "LOC")
    assert split_label("PER") == ("I", "PER")
    assert split_label("T-cell") == ("I", "T-cell")
    assert LABELS.names == ["person", "place"]


@given(st.integers(1, 200), st.integers(4, 30), st.data())
def test_windows_join_to_every_token_once(total: int, window: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    scores = np.zeros(1, np.float32)
    tokens = [Token(at, at + 1, at, scores) for at in range(total)]
    windows, start = [], 0
    while True:
        windows.append(tokens[start : start + window])
        if start + window >= total:
            break
        start += window - overlap
    assert [one.start for one in join_windows(windows, overlap)] == list(range(total))
