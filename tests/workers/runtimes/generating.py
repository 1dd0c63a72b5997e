"""Tiny models with random weights, a running engine around them, and callers that listen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

from workers.runtimes.generation.engine import Counts, Engine, Limits
from workers.runtimes.generation.language_model import LanguageModel
from workers.runtimes.generation.sequence import Part, SamplingParameters, Sequence
from workers.runtimes.generation.text import TextStream

VOCABULARY = 300
CONTEXT = 128
SECONDS = 20.0

_LAYERS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
CONFIGS: dict[str, Callable[[int], Any]] = {
    "llama": lambda context: LlamaConfig(max_position_embeddings=context, **_LAYERS),
    "gpt2": lambda context: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=context,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "qwen3": lambda context: Qwen3Config(max_position_embeddings=context, head_dim=16, **_LAYERS),
    "gemma3": lambda context: Gemma3TextConfig(
        max_position_embeddings=context,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=False,
        **_LAYERS,
    ),
}
"""One of each kind: rotary and learned positions, shared heads, a sliding window."""


from_config: Any = AutoModelForCausalLM.from_config


def tiny(kind: str, context: int = CONTEXT) -> Any:
    """A model that always has the same random weights."""
    torch.manual_seed(11)
    return from_config(CONFIGS[kind](context)).eval()


class Listener:
    """A caller that keeps what it is told. ``cancel`` may be called from any thread."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.error = ""
        self._changed = threading.Condition()
        self._cancelled = False
        self._over = False

    def is_cancelled(self) -> bool:
        assert not self._over, "asked after the end"
        return self._cancelled

    def send(self, part: Part) -> None:
        with self._changed:
            assert not self._over, "a message after the end"
            self.parts.append(part)
            self._over = bool(part.finish_reason)
            self._changed.notify_all()

    def fail(self, reason: str, message: str) -> None:
        with self._changed:
            self._over, self.error = True, self.error or reason
            self._changed.notify_all()

    def close(self) -> None:
        self.fail("", "")

    def cancel(self) -> None:
        """What the client does."""
        self._cancelled = True

    def wait_for_parts(self, count: int) -> None:
        """Returns when that many messages came, or the answer is over."""
        self._wait(lambda: self._over or len(self.parts) >= count)

    def wait(self) -> str:
        """Returns the whole text when the answer is over."""
        self._wait(lambda: self._over)
        return "".join(part.text for part in self.parts)

    @property
    def last(self) -> Part:
        """The last message."""
        return self.parts[-1]

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, SECONDS), "nothing came"


def sequence(
    prompt: list[int],
    listener: Listener,
    *,
    max_tokens: int = 30,
    end_tokens: frozenset[int] = frozenset(),
    expires: float = float("inf"),
    streaming: bool = True,
    **sampling: Any,
) -> Sequence:
    """A sequence whose text is one character a token, so that text and tokens say the same."""
    defaults: dict[str, Any] = {"temperature": 0, "top_p": 1, "top_k": 0}
    parameters = SamplingParameters(max_tokens=max_tokens, **(defaults | sampling))
    return Sequence(
        prompt=prompt,
        parameters=parameters,
        text=TextStream(characters, prompt, parameters.stop),
        caller=listener,
        end_tokens=end_tokens,
        most_tokens=max_tokens,
        expires=expires,
        streaming=streaming,
    )


def characters(tokens: list[int]) -> str:
    """One character a token."""
    return "".join(chr(0x4E00 + token) for token in tokens)


class Board:
    """Keeps the engine's last counts."""

    def __init__(self) -> None:
        self.counts = Counts()

    def publish(self, counts: Counts) -> None:
        self.counts = replace(counts)


@contextmanager
def running(
    model: Any, limits: Limits, board: Board | None = None, context: int = CONTEXT
) -> Iterator[Engine]:
    """An engine that is closed at the end."""
    language_model = LanguageModel(model, limits.max_sequences, context)
    engine = Engine(language_model, limits, board or Board())
    engine.start()
    try:
        yield engine
    finally:
        engine.close()
