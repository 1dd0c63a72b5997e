"""Chooses the next token of every sequence in one go, each by its own rules and its own dice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Choice(Protocol):
    """How one sequence wants its tokens chosen."""

    temperature: float
    """0 always takes the most probable token."""
    top_p: float
    """Only the smallest set of tokens with at least this probability; 1 is all."""
    top_k: int
    """Only this many of the most probable tokens; 0 is all."""


def choose(logits: Tensor, choices: Sequence[Choice], dice: Sequence[torch.Generator]) -> list[int]:
    """The next token of each row of ``logits`` [rows, vocabulary].

    A sampled row draws one number from its own generator and looks it up in its own distribution,
    so it gets the same token whoever its companions are.
    """
    tokens: list[int] = logits.argmax(-1).tolist()
    sampled = [row for row, choice in enumerate(choices) if choice.temperature > 0]
    if sampled:
        draws = [torch.rand((), generator=dice[row], dtype=torch.float64) for row in sampled]
        picked = _sample(logits[sampled], [choices[row] for row in sampled], torch.stack(draws))
        for row, token in zip(sampled, picked.tolist(), strict=True):
            tokens[row] = token
    return tokens


def _sample(logits: Tensor, choices: Sequence[Choice], draws: Tensor) -> Tensor:
    device = logits.device
    temperature = torch.tensor([choice.temperature for choice in choices], device=device)
    logits = logits / temperature[:, None]
    logits = _keep_top_k(logits, [choice.top_k for choice in choices])
    probabilities = torch.softmax(logits.double(), -1)
    if any(choice.top_p < 1 for choice in choices):
        probabilities = _keep_top_p(probabilities, [choice.top_p for choice in choices])
    cumulative = probabilities.cumsum(-1)
    targets = draws.to(device)[:, None] * cumulative[:, -1:]
    # The first token whose cumulative probability exceeds the draw; one of probability 0 never is.
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp_(
        max=logits.shape[-1] - 1
    )


def _keep_top_k(logits: Tensor, top_k: list[int]) -> Tensor:
    vocabulary = logits.shape[-1]
    counts = [min(k, vocabulary) if k else vocabulary for k in top_k]
    most = max((count for count in counts if count < vocabulary), default=0)
    if not most:
        return logits
    best = logits.topk(most, -1).values
    last = torch.tensor([min(count, most) - 1 for count in counts], device=logits.device)
    lowest = best.gather(-1, last[:, None])
    everything = torch.tensor([count == vocabulary for count in counts], device=logits.device)
    return logits.masked_fill((logits < lowest) & ~everything[:, None], float("-inf"))


def _keep_top_p(probabilities: Tensor, top_p: list[float]) -> Tensor:
    limits = torch.tensor(top_p, dtype=probabilities.dtype, device=probabilities.device)[:, None]
    ordered, order = probabilities.sort(stable=True, dim=-1, descending=True)
    # A token stays while those before it fall short of top_p, so the best one always stays.
    ordered[(ordered.cumsum(-1) - ordered >= limits) & (limits < 1)] = 0
    return torch.zeros_like(probabilities).scatter_(-1, order, ordered)
