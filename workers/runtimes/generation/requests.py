"""Reads a generation request's tensors: checks them, lays out the chat, tokenises the prompt."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from jinja2 import TemplateError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerBase

from workers.runtimes.generation.sequence import Caller, SamplingParameters, Sequence
from workers.runtimes.generation.text import TextStream
from workers.runtimes.refusals import Refusal


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str


_MESSAGES = TypeAdapter(Annotated[list[_Message], Field(min_length=1)])


@dataclass(frozen=True, slots=True)
class RawRequest:
    """The tensors as they came; None where absent."""

    text: bytes | None
    messages: bytes | None
    """JSON [{"role", "content"}, ..]; wins over the text."""
    sampling: bytes | None
    """JSON of SamplingParameters; what is absent takes the model's default."""
    stream: bool = True
    timeout_seconds: float = 0.0
    """0 is no limit."""


class RequestReader:
    """Turns requests into sequences. Used by one thread, while the engine's thread decodes."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        generation_config: Any,
        context_tokens: int,
        default_max_tokens: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._decode = _decoder(tokenizer)
        self._context_tokens = context_tokens
        self._defaults = _defaults(generation_config, default_max_tokens)
        self._end_tokens = _end_tokens(tokenizer, generation_config)

    def read(self, raw: RawRequest, caller: Caller) -> Sequence:
        """Raises Refusal."""
        parameters = self._parameters(raw.sampling)
        prompt = self._prompt(raw)
        if len(prompt) >= self._context_tokens:
            raise Refusal(
                "INPUT_TOO_LONG",
                "messages" if raw.messages is not None else "prompt",
                f"the prompt has {len(prompt)} tokens; the model's context of "
                f"{self._context_tokens} must hold it and the answer",
            )
        return Sequence(
            prompt=prompt,
            parameters=parameters,
            text=TextStream(self._decode, prompt, parameters.stop),
            caller=caller,
            end_tokens=self._end_tokens,
            most_tokens=min(parameters.max_tokens, self._context_tokens - len(prompt)),
            streaming=raw.stream,
            expires=time.monotonic() + (raw.timeout_seconds or float("inf")),
        )

    def _parameters(self, sampling: bytes | None) -> SamplingParameters:
        given = _json(sampling, "parameters") if sampling else {}
        if not isinstance(given, dict):
            raise Refusal("FIELD_INVALID", "parameters", "must be a JSON object")
        try:
            return SamplingParameters.model_validate(self._defaults | given)
        except ValidationError as error:
            raise _refusal("parameters", error) from error

    def _prompt(self, raw: RawRequest) -> list[int]:
        if raw.messages is not None:
            return self._chat(raw.messages)
        if raw.text is None:
            raise Refusal("FIELD_INVALID", "prompt", "a prompt or messages are needed")
        prompt: list[int] = self._tokenizer(_text(raw.text, "prompt"))["input_ids"]
        if not prompt:
            raise Refusal("FIELD_INVALID", "prompt", "must not be empty")
        return prompt

    def _chat(self, messages: bytes) -> list[int]:
        if not self._tokenizer.chat_template:
            raise Refusal(
                "FIELD_INVALID", "messages", "this model has no chat template; send a prompt"
            )
        try:
            chat = _MESSAGES.validate_python(_json(messages, "messages"))
        except ValidationError as error:
            raise _refusal("messages", error) from error
        try:
            prompt = self._tokenizer.apply_chat_template(
                [message.model_dump() for message in chat],
                add_generation_prompt=True,
                return_dict=False,
            )
        except TemplateError as error:
            message = f"the model's chat template refuses this: {error}"
            raise Refusal("FIELD_INVALID", "messages", message) from error
        return cast(list[int], prompt)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], str]:
    """Decodes without special tokens; a copy, because another thread encodes meanwhile."""
    if tokenizer.is_fast:
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        return lambda tokens: backend.decode(tokens, skip_special_tokens=True)
    slow = copy.deepcopy(tokenizer)
    return lambda tokens: str(slow.decode(tokens, skip_special_tokens=True))


def _defaults(generation_config: Any, max_tokens: int) -> dict[str, Any]:
    """What the checkpoint's authors sample with; without a word from them, the likeliest token."""
    if not generation_config.do_sample:
        return {"max_tokens": max_tokens, "temperature": 0.0, "top_p": 1.0, "top_k": 0}
    return {
        "max_tokens": max_tokens,
        "temperature": _or(generation_config.temperature, 1.0),
        "top_p": _or(generation_config.top_p, 1.0),
        "top_k": _or(generation_config.top_k, 0),
    }


def _or(value: Any, default: float) -> Any:
    return default if value is None else value


def _end_tokens(tokenizer: PreTrainedTokenizerBase, generation_config: Any) -> frozenset[int]:
    configured = generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)


def _text(content: bytes, field: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Refusal("FIELD_INVALID", field, "must be UTF-8") from error


def _json(content: bytes, field: str) -> Any:
    try:
        return json.loads(_text(content, field))
    except (ValueError, RecursionError) as error:
        raise Refusal("FIELD_INVALID", field, "must be JSON") from error


def _refusal(field: str, error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
    return Refusal("FIELD_INVALID", field + path, first["msg"])
