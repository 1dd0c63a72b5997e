"""One request on its way through the engine: its prompt, its rules, its text so far, its caller."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field

from workers.runtimes.generation.text import TextStream

FinishReason = Literal["", "stop", "length"]


class SamplingParameters(BaseModel):
    """How one answer is sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    top_k: Annotated[int, Field(ge=0)]
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=16)] = ()
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None


@dataclass(frozen=True, slots=True)
class Part:
    """One message of an answer."""

    text: str
    """What follows the text of the messages before."""
    finish_reason: FinishReason
    """Empty until the last message."""
    input_tokens: int
    output_tokens: int
    """Tokens generated so far, those held back included."""


class Caller(Protocol):
    """Whoever waits for an answer. For one thread only; after the end these do nothing."""

    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""

    def send(self, part: Part) -> None:
        """Delivers a message; one with a finish reason is the last."""

    def fail(self, reason: str, message: str) -> None:
        """Ends the answer with an error."""

    def close(self) -> None:
        """Ends a cancelled answer without another message."""


@dataclass(slots=True)
class Sequence:
    """The state of one answer; the engine's thread owns it once it is submitted."""

    prompt: list[int]
    parameters: SamplingParameters
    text: TextStream
    caller: Caller
    end_tokens: frozenset[int]
    most_tokens: int
    """Answer tokens that the request and the context leave room for."""
    streaming: bool = True
    """Whether text is wanted as it comes, or all at the end."""
    expires: float = float("inf")
    """When nobody wants the answer any more, by time.monotonic()."""
    cached: int = 0
    """Prompt and answer tokens in the cache."""
    output_tokens: int = 0
    last_token: int = 0
    finish_reason: FinishReason = ""
    sent_at: float = 0.0
    """When the last message left, by time.monotonic(); 0 before the first."""
    dice: torch.Generator = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.dice = torch.Generator()
        if self.parameters.seed is None:
            self.dice.seed()
        else:
            self.dice.manual_seed(self.parameters.seed)

    def push(self, token: int) -> None:
        """Takes the next token and sees whether it is the last."""
        self.last_token = token
        self.output_tokens += 1
        if token in self.end_tokens:
            self.finish_reason = "stop"
        else:
            self.text.push(token)
            if self.text.stopped:
                self.finish_reason = "stop"
            elif self.output_tokens >= self.most_tokens:
                self.finish_reason = "length"

    def send(self) -> None:
        """Delivers the text that is ready; with the finish reason once there is one."""
        if self.finish_reason and not self.text.stopped:
            self.text.finish()
        self.caller.send(
            Part(self.text.take(), self.finish_reason, len(self.prompt), self.output_tokens)
        )
        self.sent_at = time.monotonic()
