"""Tokens to text as they come: whole characters, and nothing of a stop text."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from workers.runtimes.generation.text import TextStream


def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose tokens are single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


BYTES = byte_tokenizer()


def deltas(text: str, stop: Sequence[str] = (), *, prompt: str = "So: ") -> list[str]:
    """What is delivered after each byte of the text, and at the end."""
    stream = TextStream(lambda tokens: BYTES.decode(tokens), BYTES.encode(prompt).ids, stop)
    given_out = []
    for token in BYTES.encode(text).ids:
        stream.push(token)
        given_out.append(stream.take())
        if stream.stopped:
            return given_out
    stream.finish()
    return [*given_out, stream.take()]


def test_a_character_of_several_tokens_is_delivered_whole() -> None:
    assert [delta for delta in deltas("né 日本 🙂!") if delta] == list("né 日本 🙂!")


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    stream = TextStream(lambda tokens: BYTES.decode(tokens), [])
    for token in BYTES.encode("ok🙂").ids[:-1]:
        stream.push(token)
    stream.finish()
    assert stream.take() == "ok"


def test_what_may_begin_a_stop_text_is_held_back_until_it_does_not() -> None:
    assert deltas("a\n\nb\nc", ["\n\n\n"]) == ["a", "", "", "\n\nb", "", "\nc", ""]


def test_held_back_text_is_delivered_when_nothing_follows() -> None:
    assert deltas("abc###", ["####"])[-1] == "###"


def test_the_earliest_of_several_stop_texts_ends_the_text() -> None:
    assert "".join(deltas("one two three", ["three", "two", "absent"])) == "one "


@given(text=st.text(max_size=40), prompt=st.text(max_size=8))
def test_the_deltas_add_up_to_the_text(text: str, prompt: str) -> None:
    # A replacement character of the model's own looks like an unfinished one until another follows.
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    assert "".join(deltas(text, prompt=prompt)) == text


@given(
    text=st.text(alphabet="aab\n é🙂", max_size=60),
    stop=st.lists(st.text(alphabet="ab\né🙂", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_the_text_ends_exactly_before_the_first_stop_text(text: str, stop: list[str]) -> None:
    found = [text.find(one) for one in stop if one in text]
    ends = [text.find(one) + len(one) for one in stop if one in text]
    delivered = "".join(deltas(text, stop))
    if not found:
        assert delivered == text
        return
    # The stop text that is complete first decides; of those complete together, the longest.
    first = min(ends)
    assert delivered == text[: min(at for at, end in zip(found, ends, strict=True) if end == first)]
