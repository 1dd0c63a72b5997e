"""Rows of any lengths, cut into micro-batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.runtimes.micro_batches import micro_batches

LENGTHS = st.lists(st.integers(min_value=0, max_value=600), max_size=80)
BUDGETS = st.integers(min_value=1, max_value=4096)


@given(LENGTHS, BUDGETS)
def test_every_row_is_in_exactly_one_micro_batch(lengths: list[int], budget: int) -> None:
    rows = [row for group in micro_batches(lengths, budget) for row in group]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_a_padded_micro_batch_stays_in_its_budget_unless_it_is_one_row(
    lengths: list[int], budget: int
) -> None:
    for group in micro_batches(lengths, budget):
        padded = len(group) * max(lengths[row] for row in group)
        assert padded <= budget or len(group) == 1


@given(LENGTHS, BUDGETS)
def test_no_row_of_a_micro_batch_is_longer_than_any_row_of_the_next(
    lengths: list[int], budget: int
) -> None:
    in_order = [lengths[row] for group in micro_batches(lengths, budget) for row in group]
    assert in_order == sorted(lengths)


def test_sorting_saves_most_of_the_padding() -> None:
    lengths = [8, 250] * 32
    padded = sum(
        len(group) * max(lengths[row] for row in group) for group in micro_batches(lengths, 1024)
    )
    assert padded < 1.1 * sum(lengths) < 0.6 * len(lengths) * max(lengths)
