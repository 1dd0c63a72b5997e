"""Choosing tokens: each row by its own rules and its own dice."""

from __future__ import annotations

from typing import Any

import torch

from workers.runtimes.generation.pace import Pace
from workers.runtimes.generation.sampling import choose
from workers.runtimes.generation.sequence import SamplingParameters

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0, 1.5])
PROBABILITIES = torch.softmax(LOGITS, -1)


def parameters(**given: Any) -> SamplingParameters:
    return SamplingParameters(**{"max_tokens": 1, "temperature": 1, "top_p": 1, "top_k": 0} | given)


def dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frequencies(draws: int = 20_000, **given: Any) -> torch.Tensor:
    """How often each token is chosen, by one sequence."""
    rules, generator = parameters(**given), dice(3)
    tokens = [
        token
        for _ in range(draws // 500)
        for token in choose(LOGITS.expand(500, -1), [rules] * 500, [generator] * 500)
    ]
    return torch.bincount(torch.tensor(tokens), minlength=len(LOGITS)) / len(tokens)


def close(seen: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(seen, expected / expected.sum(), atol=0.012)


def test_tokens_come_as_often_as_they_are_probable() -> None:
    assert close(frequencies(), PROBABILITIES)


def test_temperature_flattens_or_sharpens() -> None:
    assert close(frequencies(temperature=2), torch.softmax(LOGITS / 2, -1))
    assert close(frequencies(temperature=0.5), torch.softmax(LOGITS / 0.5, -1))


def test_top_k_keeps_the_most_probable() -> None:
    assert close(frequencies(top_k=2), PROBABILITIES * torch.tensor([0, 1, 0, 0, 1]))
    assert close(frequencies(top_k=99), PROBABILITIES)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    # 0.46, 0.28, 0.17, 0.06, 0.02: two fall short of 0.8, three do not.
    assert close(frequencies(top_p=0.8), PROBABILITIES * torch.tensor([0, 1, 1, 0, 1]))
    assert frequencies(top_p=1e-9, draws=500)[1] == 1


def test_temperature_zero_takes_the_best_and_draws_nothing() -> None:
    generator = dice(1)
    before = generator.get_state()
    assert choose(LOGITS[None], [parameters(temperature=0)], [generator]) == [1]
    assert torch.equal(generator.get_state(), before)


def test_a_row_is_chosen_the_same_in_any_company() -> None:
    rows = torch.randn(6, 50, generator=dice(8))
    rules = [
        parameters(),
        parameters(temperature=0),
        parameters(top_k=3),
        parameters(top_p=0.5),
        parameters(temperature=1.7, top_k=20, top_p=0.9),
        parameters(top_p=0.99),
    ]
    together = choose(rows, rules, [dice(seed) for seed in range(6)])
    alone = [choose(rows[k : k + 1], rules[k : k + 1], [dice(k)])[0] for k in range(6)]
    assert together == alone


def test_messages_grow_rarer_with_the_number_of_sequences_and_one_alone_sends_every_token() -> None:
    pace = Pace()
    assert pace.interval(16) == 0
    for _ in range(20):
        with pace.sending():
            sum(range(20_000))
    assert pace.interval(1) == 0 < pace.interval(4) < pace.interval(16)
