"""Requests to sequences: parameters, prompts, chats, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerFast

from tests.workers.runtimes.generating import Listener
from tests.workers.runtimes.test_text_generation_text import byte_tokenizer
from workers.runtimes.generation.requests import RawRequest, RequestReader
from workers.runtimes.generation.sequence import Sequence
from workers.runtimes.refusals import Refusal

CONTEXT = 40
TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('only user and assistant speak') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def reader(template: str | None = TEMPLATE, **defaults: Any) -> RequestReader:
    make_tokenizer: Any = PreTrainedTokenizerFast
    make_config: Any = GenerationConfig
    backend: Tokenizer = byte_tokenizer()
    backend.add_special_tokens(["<end>"])
    tokenizer = make_tokenizer(tokenizer_object=backend, eos_token="<end>", chat_template=template)
    return RequestReader(tokenizer, make_config(**defaults), CONTEXT, default_max_tokens=7)


def read(
    text: str | bytes | None = None,
    *,
    messages: Any = None,
    sampling: Any = None,
    by: RequestReader | None = None,
) -> Sequence:
    raw = RawRequest(
        text=text.encode() if isinstance(text, str) else text,
        messages=None if messages is None else json.dumps(messages).encode(),
        sampling=None if sampling is None else json.dumps(sampling).encode(),
    )
    return (by or reader()).read(raw, Listener())


def prompt_text(sequence: Sequence) -> str:
    return str(byte_tokenizer().decode(sequence.prompt))


def test_a_prompt_is_continued_with_the_models_defaults() -> None:
    sequence = read("Once", by=reader(do_sample=True, temperature=0.5, top_k=9))
    assert prompt_text(sequence) == "Once"
    chosen = sequence.parameters
    assert (chosen.max_tokens, chosen.temperature, chosen.top_p, chosen.top_k) == (7, 0.5, 1.0, 9)


def test_without_defaults_the_likeliest_token_is_taken() -> None:
    assert read("Once", by=reader(do_sample=False, temperature=0.5)).parameters.temperature == 0


def test_given_parameters_win() -> None:
    given = {"max_tokens": 3, "temperature": 0.9, "top_p": 0.5, "top_k": 4, "stop": ["x"]}
    chosen = read("Once", sampling=given | {"seed": -5}).parameters
    assert chosen.model_dump() == given | {"seed": -5, "stop": ("x",)}


def test_a_chat_is_laid_out_by_the_tokenizers_template() -> None:
    chat = [{"role": "user", "content": "Hi"}]
    assert prompt_text(read("ignored", messages=chat)) == "user: Hi\nassistant:"


def test_the_models_own_end_tokens_end_a_text() -> None:
    end = byte_tokenizer().get_vocab_size()
    assert read("a", by=reader(eos_token_id=[3, 4])).end_tokens == {3, 4, end}


def test_the_context_bounds_the_answer() -> None:
    assert read("x" * 30, sampling={"max_tokens": 500}).most_tokens == 10
    assert read("x" * 39, sampling={"max_tokens": 500}).most_tokens == 1


@pytest.mark.parametrize("length", [40, 1000])
def test_a_prompt_that_leaves_no_room_is_too_long(length: int) -> None:
    with pytest.raises(Refusal) as caught:
        read("x" * length)
    assert (caught.value.reason, caught.value.field) == ("INPUT_TOO_LONG", "prompt")


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"temperature": 2.5}, "parameters.temperature"),
        ({"temperature": "hot"}, "parameters.temperature"),
        ({"top_p": 0}, "parameters.top_p"),
        ({"max_tokens": 0}, "parameters.max_tokens"),
        ({"stop": ["a", ""]}, "parameters.stop[1]"),
        ({"stop": ["a"] * 17}, "parameters.stop"),
        ({"seed": 2**64}, "parameters.seed"),
        ({"beams": 4}, "parameters.beams"),
        ([], "parameters"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_by_name(sampling: Any, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        read("Once", sampling=sampling)
    assert (caught.value.reason, caught.value.field) == ("FIELD_INVALID", field)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "system", "content": "x"}], "messages"),
        ("hello", "messages"),
    ],
)
def test_chats_that_make_no_sense_are_refused_by_name(messages: Any, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(messages=messages)
    assert (caught.value.reason, caught.value.field) == ("FIELD_INVALID", field)


def test_the_templates_own_words_tell_what_it_refuses() -> None:
    with pytest.raises(Refusal, match="only user and assistant speak"):
        read(messages=[{"role": "system", "content": "x"}])


def test_a_chat_needs_a_template() -> None:
    with pytest.raises(Refusal, match="no chat template"):
        read(messages=[{"role": "user", "content": "Hi"}], by=reader(template=None))


@pytest.mark.parametrize("text", [None, "", b"\xff\xfe"])
def test_a_prompt_must_be_some_text(text: Any) -> None:
    with pytest.raises(Refusal) as caught:
        read(text)
    assert (caught.value.reason, caught.value.field) == ("FIELD_INVALID", "prompt")
