"""Rows and matrices are read by the model's signature, and nothing else gets through."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.validation.features import LARGEST_FLOAT, read_features
from gateway.validation.fields import MOST_VIOLATIONS
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.packages import Feature
from tests.gateway.specs import FEATURES
from tests.gateway.violations import INFINITY, NAN, violations_of

Row = dict[str, pb.FeatureValue]


def number(value: float) -> pb.FeatureValue:
    return pb.FeatureValue(number=value)


def category(value: str) -> pb.FeatureValue:
    return pb.FeatureValue(category=value)


def rows_of(*rows: Row) -> pb.PredictRequest:
    return pb.PredictRequest(
        rows=pb.FeatureRows(rows=[pb.FeatureRow(features=row) for row in rows])
    )


def matrix_of(values: Sequence[Sequence[float]]) -> pb.PredictRequest:
    data = np.array(values, dtype="<f4")
    return pb.PredictRequest(
        matrix=pb.FeatureMatrix(rows=data.shape[0], columns=data.shape[1], data=data.tobytes())
    )


def read(request: pb.PredictRequest) -> list[tuple[float, ...]]:
    rows, data = read_features(request, FEATURES)
    found = list(struct.iter_unpack("<3f", data))
    assert len(found) == rows
    return found


GOOD: Row = {"amount": number(2.5), "country": category("fr"), "age": number(30)}


def test_a_row_is_read_in_the_signatures_order() -> None:
    assert read(rows_of(GOOD)) == [(2.5, 1.0, 30.0)]


def test_zero_and_truth_values_are_numbers() -> None:
    flag = pb.FeatureValue(flag=True)
    unflagged = pb.FeatureValue(flag=False)
    assert read(
        rows_of(
            {**GOOD, "amount": number(0.0)},
            {**GOOD, "amount": flag},
            {**GOOD, "amount": unflagged},
        )
    ) == [(0.0, 1.0, 30.0), (1.0, 1.0, 30.0), (0.0, 1.0, 30.0)]


def test_an_optional_feature_may_be_left_out_or_nan() -> None:
    without = {name: value for name, value in GOOD.items() if name != "age"}
    for row in (without, {**GOOD, "age": number(NAN)}):
        ((amount, country, age),) = read(rows_of(row))
        assert (amount, country) == (2.5, 1.0)
        assert math.isnan(age)


AMOUNT = 'rows.rows[1].features["amount"]'
COUNTRY = 'rows.rows[1].features["country"]'
AGE = 'rows.rows[1].features["age"]'


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"amount": number(NAN)}, (AMOUNT, "is NaN, and not optional")),
        ({"amount": number(INFINITY)}, (AMOUNT, "is inf, beyond 32-bit floats")),
        ({"amount": number(-INFINITY)}, (AMOUNT, "is -inf, beyond 32-bit floats")),
        ({"amount": number(1e39)}, (AMOUNT, "is 1e+39, beyond 32-bit floats")),
        ({"age": number(INFINITY)}, (AGE, "is inf, beyond 32-bit floats")),
        ({"amount": category("12")}, (AMOUNT, "is '12', not a number")),
        ({"amount": pb.FeatureValue()}, (AMOUNT, "has no value")),
        ({"country": category("at")}, (COUNTRY, "is 'at', not a category of 'de', 'fr', 'it'")),
        ({"country": number(1)}, (COUNTRY, "is a number, not a category of 'de', 'fr', 'it'")),
        (
            {"country": pb.FeatureValue(flag=True)},
            (COUNTRY, "is a flag, not a category of 'de', 'fr', 'it'"),
        ),
        ({"country": pb.FeatureValue()}, (COUNTRY, "has no value")),
        (
            {"extra": number(1)},
            ("rows.rows[1].features", "has 'extra', which the model does not know"),
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named(change: Row, expected: tuple[str, str]) -> None:
    request = rows_of(GOOD, {**GOOD, **change})
    assert violations_of(lambda: read(request)) == [expected]


def test_everything_wrong_with_the_rows_is_said_at_once() -> None:
    request = rows_of({"age": number(1), "Amount": number(1)}, {**GOOD, "amount": number(NAN)})
    assert violations_of(lambda: read(request)) == [
        ('rows.rows[0].features["amount"]', "is missing"),
        ('rows.rows[0].features["country"]', "is missing"),
        ("rows.rows[0].features", "has 'Amount', which the model does not know"),
        (AMOUNT, "is NaN, and not optional"),
    ]


def test_an_empty_text_may_be_a_category_and_is_no_default() -> None:
    features = (Feature(name="kind", categories=("", "x")),)
    given = rows_of({"kind": category("")})
    assert read_features(given, features) == (1, struct.pack("<f", 0.0))
    for value in (number(5), pb.FeatureValue()):
        request = rows_of({"kind": value})
        assert violations_of(partial(read_features, request, features))


def test_a_long_list_of_categories_is_cut() -> None:
    features = (Feature(name="kind", categories=tuple(f"c{i}" for i in range(500))),)
    request = rows_of({"kind": category("z" * 500)})
    ((_, description),) = violations_of(lambda: read_features(request, features))
    assert description == (
        f"is '{'z' * 37}...', not a category of 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', ..."
    )


@pytest.mark.parametrize("times", [1, 200])
def test_a_matrix_is_taken_as_it_is(times: int) -> None:
    request = matrix_of([[2.5, 1.0, NAN], [0.0, 2.0, -3.0]] * times)
    assert read_features(request, FEATURES) == (2 * times, request.matrix.data)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([NAN, 0, 0], "feature 'amount' is NaN, and not optional"),
        ([INFINITY, 0, 0], "feature 'amount' is infinite"),
        ([0, 0, -INFINITY], "feature 'age' is infinite"),
        ([0, 3, 0], "feature 'country' is 3; its 3 categories count from 0"),
        ([0, -1, 0], "feature 'country' is -1; its 3 categories count from 0"),
        ([0, 0.5, 0], "feature 'country' is 0.5; its 3 categories count from 0"),
        ([0, INFINITY, 0], "feature 'country' is inf; its 3 categories count from 0"),
        ([0, NAN, 0], "feature 'country' is NaN, and not optional"),
    ],
)
@pytest.mark.parametrize("others", [1, 500])
def test_a_matrix_value_that_does_not_fit_is_named(
    row: list[float], expected: str, others: int
) -> None:
    request = matrix_of([[1, 1, 1]] * others + [row])
    assert violations_of(lambda: read(request)) == [("matrix.data", f"row {others}: {expected}")]


def test_a_numeric_matrix_is_checked_without_categories_too() -> None:
    features = (Feature(name="x"), Feature(name="y", optional=True))
    request = matrix_of([[1, NAN], [INFINITY, 1], [-INFINITY, 1]])
    assert violations_of(lambda: read_features(request, features)) == [
        ("matrix.data", "row 1: feature 'x' is infinite"),
        ("matrix.data", "row 2: feature 'x' is infinite"),
    ]


def test_a_matrix_of_other_columns_is_refused() -> None:
    assert violations_of(lambda: read(matrix_of([[1.0, 2.0]]))) == [
        ("matrix.columns", "is 2; the model has 3 features")
    ]


@pytest.mark.parametrize("rows", [40, 5_000])
def test_a_refusal_names_only_so_many_of_very_many_faults(rows: int) -> None:
    by_name = rows_of(*[{"amount": number(NAN)}] * rows)
    by_column = matrix_of([[NAN, NAN, NAN]] * rows)
    for request in (by_name, by_column):
        assert 10 <= len(violations_of(partial(read, request))) <= MOST_VIOLATIONS


_numbers = st.floats(-LARGEST_FLOAT, LARGEST_FLOAT, width=32)
_rows = st.lists(
    st.tuples(_numbers, st.sampled_from(["de", "fr", "it"]), st.none() | _numbers),
    min_size=1,
    max_size=20,
)


@given(_rows)
def test_rows_by_name_and_by_column_are_the_same_matrix(
    rows: list[tuple[float, str, float | None]],
) -> None:
    codes = {"de": 0.0, "fr": 1.0, "it": 2.0}
    named = []
    for amount, country, age in rows:
        row = {"amount": number(amount), "country": category(country)}
        named.append(row if age is None else {**row, "age": number(age)})
    matrix = matrix_of(
        [[amount, codes[country], NAN if age is None else age] for amount, country, age in rows]
    )
    counted, data = read_features(rows_of(*named), FEATURES)
    assert counted == len(rows)
    np.testing.assert_array_equal(
        np.frombuffer(data, "<f4"), np.frombuffer(read_features(matrix, FEATURES)[1], "<f4")
    )
