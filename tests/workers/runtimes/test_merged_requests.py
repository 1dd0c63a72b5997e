"""Requests that Triton merged: answered together, refused and failing alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from workers.runtimes.merged_requests import Answer, Answerer, Outputs, RunFailed
from workers.runtimes.refusals import Refusal


class Doubler:
    """Doubles numbers; cannot read text, refuses 13 when it runs, and breaks on 666."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def read(self, value: Any) -> int:
        if value == -1:
            raise RuntimeError("/secret/path")
        if not 0 <= value < 1000:
            raise Refusal("FIELD_INVALID", "rows", "must be 0 to 999")
        return int(value)

    def run(self, rows: Sequence[int]) -> Outputs:
        self.runs.append(len(rows))
        if 13 in rows:
            raise Refusal("FIELD_INVALID", "rows", "must not be 13")
        if 666 in rows:
            raise RuntimeError("/secret/path")
        return {"double": np.array([[2 * row] for row in rows])}


def answers(model: Doubler, *requests: list[int]) -> list[Answer]:
    return Answerer(model).answer([np.array(request) for request in requests])


def doubles(answer: Answer) -> list[int]:
    assert not isinstance(answer, Exception)
    numbers: list[int] = answer["double"][:, 0].tolist()
    return numbers


def test_merged_requests_run_once_and_each_gets_its_own_rows() -> None:
    model = Doubler()
    first, second, third = answers(model, [1], [2, 3, 4], [5])
    assert (doubles(first), doubles(second), doubles(third)) == ([2], [4, 6, 8], [10])
    assert model.runs == [5]


def test_a_request_that_cannot_be_read_is_refused_and_the_others_still_run_merged() -> None:
    model = Doubler()
    first, bad, last = answers(model, [1], [2, 2000], [3])
    assert isinstance(bad, Refusal)
    assert (doubles(first), doubles(last)) == ([2], [6])
    assert model.runs == [2]


def test_a_request_refused_while_running_takes_no_other_with_it() -> None:
    first, bad, last = answers(Doubler(), [1], [13], [3])
    assert isinstance(bad, Refusal)
    assert (doubles(first), doubles(last)) == ([2], [6])


@pytest.mark.parametrize("poison", [666, -1])
def test_a_request_that_breaks_the_model_fails_alone_and_tells_nothing(poison: int) -> None:
    first, bad, last = answers(Doubler(), [1], [poison], [3])
    assert isinstance(bad, RunFailed)
    assert str(bad) == "internal error"
    assert (doubles(first), doubles(last)) == ([2], [6])
