"""The generation engine on tiny random models: its texts alone and in company, its manners."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, MambaConfig

from penstock.service.packages import ModelSpec
from tests.workers.runtimes.generating import (
    CONFIGS,
    CONTEXT,
    VOCABULARY,
    Board,
    Listener,
    characters,
    from_config,
    running,
    sequence,
    tiny,
)
from workers.runtimes.generation.engine import Limits
from workers.runtimes.generation.language_model import LanguageModel, ModelUnsuitable
from workers.runtimes.launch import Launch

PROMPTS = [[(17 * k + 5 * i + 1) % VOCABULARY for i in range(3 + 4 * k)] for k in range(9)]
"""Nine prompts of 3 to 35 tokens."""
SAMPLED = {"temperature": 1.3, "top_p": 0.9, "top_k": 40}


@pytest.fixture(params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def generated(model: Any, prompt: list[int], max_tokens: int) -> str:
    """What transformers' own greedy generate() makes of it."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return characters(output[0, len(prompt) :].tolist())


def texts(model: Any, limits: Limits, asked: list[dict[str, Any]], *, staggered: bool) -> list[str]:
    """The texts of several requests; staggered, each joins while others are under way."""
    listeners = [Listener() for _ in asked]
    with running(model, limits) as engine:
        for count, (request, listener) in enumerate(zip(asked, listeners, strict=True), 1):
            engine.submit(sequence(listener=listener, **request))
            if staggered:
                listeners[0].wait_for_parts(2 * count)
        return [listener.wait() for listener in listeners]


def test_greedy_text_is_that_of_transformers_generate(model: Any) -> None:
    asked = [{"prompt": prompt, "max_tokens": 20 + k} for k, prompt in enumerate(PROMPTS)]
    expected = [generated(model, prompt, 20 + k) for k, prompt in enumerate(PROMPTS)]
    assert len(set("".join(expected))) > 20, "a model that repeats itself proves nothing"
    assert texts(model, Limits(4, 16), asked, staggered=False) == expected


@pytest.mark.parametrize("how", ["greedy", "sampled"])
def test_text_is_the_same_alone_and_in_company(model: Any, how: str) -> None:
    asked = [
        {
            "prompt": prompt,
            "max_tokens": 12 + 9 * (k % 4),
            **({**SAMPLED, "seed": k} if how == "sampled" else {}),
        }
        for k, prompt in enumerate(PROMPTS)
    ]
    alone = [texts(model, Limits(1, 1), [request], staggered=False)[0] for request in asked]
    assert texts(model, Limits(4, 16), asked, staggered=True) == alone
    assert (
        texts(model, Limits(16, 16, prefill_tokens=8), asked[::-1], staggered=False)
        == (alone[::-1])
    )


def test_a_long_prompt_is_read_in_pieces_while_others_go_on(model: Any) -> None:
    long = [(7 * i) % VOCABULARY for i in range(90)]
    asked = [{"prompt": PROMPTS[0], "max_tokens": 60}, {"prompt": long, "max_tokens": 20}]
    expected = [generated(model, PROMPTS[0], 60), generated(model, long, 20)]
    assert texts(model, Limits(4, 16, prefill_tokens=8), asked, staggered=True) == expected


def test_a_seed_decides_the_text_and_without_one_texts_differ() -> None:
    model = tiny("llama")
    same = {"prompt": PROMPTS[1], **SAMPLED}
    asked = [{**same, "seed": 5}, {**same, "seed": 5}, {**same, "seed": 6}, same, same]
    five, again, six, free, other = texts(model, Limits(8, 8), asked, staggered=False)
    assert five == again
    assert len({five, six, free, other}) == 4


def test_an_end_token_ends_the_text_and_is_not_delivered() -> None:
    model = tiny("llama")
    whole = generated(model, PROMPTS[2], 20)
    end = ord(whole[6]) - 0x4E00
    listener = Listener()
    with running(model, Limits(2, 2)) as engine:
        engine.submit(sequence(PROMPTS[2], listener, end_tokens=frozenset({end})))
        assert listener.wait() == whole[: whole.index(whole[6])]
    assert listener.last.finish_reason == "stop"
    assert listener.last.output_tokens == whole.index(whole[6]) + 1


def test_a_stop_text_is_never_delivered_nor_any_part_of_it() -> None:
    model = tiny("llama")
    whole = generated(model, PROMPTS[2], 20)
    stop = whole[5:9]
    listener = Listener()
    with running(model, Limits(2, 2)) as engine:
        engine.submit(sequence(PROMPTS[2], listener, stop=("never", stop)))
        assert listener.wait() == whole[: whole.index(stop)]
    assert listener.last.finish_reason == "stop"


def test_messages_carry_running_totals() -> None:
    listener = Listener()
    with running(tiny("llama"), Limits(2, 2)) as engine:
        engine.submit(sequence(PROMPTS[3], listener, max_tokens=25))
        text = listener.wait()
    seen = 0
    for part in listener.parts:
        seen += len(part.text)
        assert (part.input_tokens, part.output_tokens) == (len(PROMPTS[3]), seen)
    assert (len(text), listener.last.finish_reason) == (25, "length")
    assert [part.finish_reason for part in listener.parts[:-1]] == [""] * (len(listener.parts) - 1)


def test_without_streaming_there_is_one_message() -> None:
    listener = Listener()
    with running(tiny("llama"), Limits(2, 2)) as engine:
        engine.submit(sequence(PROMPTS[3], listener, max_tokens=25, streaming=False))
        assert len(listener.wait()) == 25
    assert len(listener.parts) == 1


def test_a_cancelled_sequence_gives_its_row_to_the_next_and_is_computed_no_further() -> None:
    first, second, board = Listener(), Listener(), Board()
    model = tiny("llama", context=4096)
    with running(model, Limits(1, 4), board, context=4096) as engine:
        engine.submit(sequence(PROMPTS[0], first, max_tokens=4000))
        engine.submit(sequence(PROMPTS[1], second, max_tokens=5))
        first.wait_for_parts(3)
        first.cancel()
        assert second.wait() == generated(model, PROMPTS[1], 5)
        first.wait()
    assert not first.parts[-1].finish_reason
    # Two more steps at most, and what was computed while this test looked on.
    assert board.counts.tokens < 400


def test_one_cancelled_while_it_waits_never_runs() -> None:
    first, second, third, board = Listener(), Listener(), Listener(), Board()
    with running(tiny("llama"), Limits(1, 4), board) as engine:
        engine.submit(sequence(PROMPTS[0], first, max_tokens=100))
        engine.submit(sequence(PROMPTS[1], second, max_tokens=100))
        second.cancel()
        engine.submit(sequence(PROMPTS[2], third, max_tokens=5))
        assert len(third.wait()) == 5
    assert second.parts == []
    assert board.counts.prompt_tokens == len(PROMPTS[0]) + len(PROMPTS[2])


def test_a_full_waiting_line_refuses_at_once() -> None:
    callers = [Listener() for _ in range(4)]
    with running(tiny("llama"), Limits(1, 1)) as engine:
        engine.submit(sequence(PROMPTS[0], callers[0], max_tokens=100))
        callers[0].wait_for_parts(1)
        for caller in callers[1:]:
            engine.submit(sequence(PROMPTS[1], caller, max_tokens=10))
        for caller in callers[2:]:
            caller.wait()
            assert caller.error == "OVERLOADED"
        assert len(callers[0].wait()) == 100
        assert len(callers[1].wait()) == 10


def test_a_deadline_that_passed_ends_the_answer() -> None:
    late, quick = Listener(), Listener()
    model = tiny("llama", context=4096)
    with running(model, Limits(1, 4), context=4096) as engine:
        soon = time.monotonic() + 0.1
        engine.submit(sequence(PROMPTS[0], late, max_tokens=4000, expires=soon))
        engine.submit(sequence(PROMPTS[1], quick, max_tokens=5))
        assert len(quick.wait()) == 5
    assert late.error == "DEADLINE_EXCEEDED"


def test_a_failing_step_ends_the_open_answers_and_the_next_ones_are_right() -> None:
    model = tiny("llama")
    victim, culprit, later = Listener(), Listener(), Listener()
    with running(model, Limits(4, 4)) as engine:
        engine.submit(sequence(PROMPTS[0], victim, max_tokens=110))
        victim.wait_for_parts(1)
        engine.submit(sequence([VOCABULARY + 5], culprit))
        victim.wait()
        culprit.wait()
        assert victim.error == culprit.error == "INTERNAL"
        engine.submit(sequence(PROMPTS[2], later, max_tokens=20))
        assert later.wait() == generated(model, PROMPTS[2], 20)


def test_closing_ends_open_and_waiting_answers_with_an_error() -> None:
    runs, waits = Listener(), Listener()
    with running(tiny("llama", context=4096), Limits(1, 4), context=4096) as engine:
        engine.submit(sequence(PROMPTS[0], runs, max_tokens=4000))
        engine.submit(sequence(PROMPTS[1], waits, max_tokens=5))
        runs.wait_for_parts(1)
    assert runs.error == waits.error == "UNAVAILABLE"


def test_many_joins_leaves_and_cancels_leave_every_text_right() -> None:
    model = tiny("gpt2")
    whole = [generated(model, prompt, 45) for prompt in PROMPTS]
    lengths = [3 + (11 * k) % 40 for k in range(80)]
    listeners = [Listener() for _ in lengths]
    with running(model, Limits(6, 100)) as engine:
        for k, (tokens, listener) in enumerate(zip(lengths, listeners, strict=True)):
            engine.submit(sequence(PROMPTS[k % 9], listener, max_tokens=tokens))
            if k % 5 == 4:
                listeners[k - 2].cancel()
        for k, (tokens, listener) in enumerate(zip(lengths, listeners, strict=True)):
            text = listener.wait()
            assert text == whole[k % 9][: len(text) if k % 5 == 2 else tokens]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (BloomConfig(vocab_size=VOCABULARY, hidden_size=64, n_layer=2, n_head=4), "shared cache"),
        (
            MambaConfig(vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2),
            "linear_attention",
        ),
    ],
    ids=["alibi", "recurrent"],
)
def test_a_model_that_cannot_share_a_step_is_refused(config: Any, why: str, tmp_path: Path) -> None:
    from_config(config, attn_implementation="eager").save_pretrained(tmp_path)
    spec = ModelSpec(
        name="odd",
        version="1",
        task="text-generation",
        runtime="transformers",
        weights="model.safetensors",
        max_tokens=CONTEXT,
    )
    with pytest.raises(ModelUnsuitable, match=why):
        LanguageModel.load(Launch(tmp_path, spec))


def test_a_package_may_shorten_the_context(tmp_path: Path) -> None:
    tiny("gpt2").save_pretrained(tmp_path)
    spec = ModelSpec(
        name="short",
        version="1",
        task="text-generation",
        runtime="transformers",
        weights="model.safetensors",
        max_tokens=CONTEXT // 2,
    )
    assert LanguageModel.load(Launch(tmp_path, spec)).context_tokens == CONTEXT // 2
