"""Rows of features from strangers."""

from __future__ import annotations

import math

import pytest

from penstock.service.packages import Feature
from workers.runtimes.refusals import Refusal
from workers.runtimes.tabular import check_feature

AGE = Feature(name="age")
COLOUR = Feature(name="colour", categories=("red", "green"))
DISTANCE = Feature(name="distance", optional=True)


@pytest.mark.parametrize(
    ("feature", "number"), [(AGE, -3.5), (COLOUR, 0.0), (COLOUR, 1.0), (DISTANCE, math.nan)]
)
def test_values_that_fit_the_feature_pass(feature: Feature, number: float) -> None:
    check_feature(feature, number)


@pytest.mark.parametrize(
    ("feature", "number", "message"),
    [
        (AGE, math.nan, "feature 'age' is missing"),
        (AGE, math.inf, "feature 'age' must be finite"),
        (DISTANCE, -math.inf, "feature 'distance' must be finite"),
        (COLOUR, 2.0, "feature 'colour' must be one of red, green"),
        (COLOUR, -1.0, "feature 'colour' must be one of red, green"),
        (COLOUR, 0.5, "feature 'colour' must be one of red, green"),
    ],
)
def test_values_that_do_not_are_refused_by_name(
    feature: Feature, number: float, message: str
) -> None:
    with pytest.raises(Refusal) as caught:
        check_feature(feature, number)
    assert str(caught.value) == message
