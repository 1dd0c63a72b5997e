"""Rows of any lengths, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from workers.runtimes.micro_batches import micro_batches

LENGTHS = st.lists(st.integers(min_value=0, max_value=600), max_size=80)
BUDGETS = st.integers(min_value=1, max_value=4096)
PASSES = st.integers(min_value=0, max_value=300)


@given(LENGTHS, BUDGETS, PASSES)
def test_every_row_is_in_exactly_one_micro_batch(
    lengths: list[int], budget: int, pass_tokens: int
) -> None:
    rows = [row for group in micro_batches(lengths, budget, pass_tokens) for row in group]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS, PASSES)
def test_a_padded_micro_batch_stays_in_its_budget_unless_it_is_one_row(
    lengths: list[int], budget: int, pass_tokens: int
) -> None:
    for group in micro_batches(lengths, budget, pass_tokens):
        padded = len(group) * max(lengths[row] for row in group)
        assert padded <= budget or len(group) == 1


@given(LENGTHS, BUDGETS, PASSES)
def test_no_row_of_a_micro_batch_is_longer_than_any_row_of_the_next(
    lengths: list[int], budget: int, pass_tokens: int
) -> None:
    in_order = [
        lengths[row] for group in micro_batches(lengths, budget, pass_tokens) for row in group
    ]
    assert in_order == sorted(lengths)


@given(st.lists(st.integers(min_value=0, max_value=60), max_size=9), BUDGETS, PASSES)
def test_no_other_cut_of_the_sorted_rows_costs_less(
    lengths: list[int], budget: int, pass_tokens: int
) -> None:
    def cost(groups: list[list[int]]) -> int:
        return sum(len(group) * max(group) + pass_tokens for group in groups)

    def cuts(rows: list[int]) -> Iterator[list[list[int]]]:
        if not rows:
            yield []
        for size in range(1, len(rows) + 1):
            if size == 1 or size * rows[size - 1] <= budget:
                yield from ([rows[:size], *rest] for rest in cuts(rows[size:]))

    found = micro_batches(lengths, budget, pass_tokens)
    cheapest = min(map(cost, cuts(sorted(lengths))))
    assert cost([[lengths[row] for row in group] for group in found]) == cheapest


def test_a_few_rows_of_unlike_lengths_do_not_share_a_pass() -> None:
    assert micro_batches([200, 10, 12, 100], 1024, 24) == [[1, 2], [3], [0]]


def test_rows_of_like_length_share_one() -> None:
    assert micro_batches([20, 10, 12, 16], 1024, 24) == [[1, 2, 3, 0]]
