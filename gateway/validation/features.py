"""Reads Predict's rows by a model's signature, refusing what does not fit it.

Checking and reading are one pass, because walking the messages is what costs.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.validation.fields import Violations, quote
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.packages import Feature

LARGEST_FLOAT = 3.4028234663852886e38
"""The largest 32-bit float."""
MOST_NAMED_CATEGORIES = 8
"""Categories that a refusal lists."""
_FEW_VALUES = 256
"""Up to here, plain Python is faster than numpy's fixed costs."""


Column = tuple[str, Mapping[str, float] | None, bool]
"""One feature of the signature: its name, its categories' codes or None, whether it is optional."""


def read_features(request: pb.PredictRequest, features: Sequence[Feature]) -> tuple[int, bytes]:
    """The number of rows, and rows x features little-endian 32-bit floats, row after row.

    A category is its index, an absent value NaN. Raises InvalidArgument.
    """
    violations = Violations()
    if request.WhichOneof("input") == "matrix":
        matrix = request.matrix
        if matrix.columns != len(features):
            violations.add(
                "matrix.columns", f"is {matrix.columns:,}; the model has {len(features):,} features"
            )
            violations.refuse()
        check_values(matrix.data, features, "matrix.data", violations)
        violations.refuse()
        return matrix.rows, matrix.data
    rows = request.rows.rows
    values = _read_rows(rows, features, violations)
    violations.refuse()
    return len(rows), values.tobytes()


def check_values(
    data: bytes, features: Sequence[Feature], field: str, violations: Violations
) -> None:
    """Checks a whole number of rows of little-endian 32-bit floats against the signature."""
    columns = [(len(feature.categories), feature.optional) for feature in features]
    plain = not any(categories for categories, _ in columns)
    if len(data) > 4 * _FEW_VALUES:
        matrix = np.frombuffer(data, "<f4").reshape(-1, len(features))
        if plain and np.isfinite(matrix).all():
            return
        faults = np.argwhere(_unfit(matrix, columns))
        places = [(int(row), int(column)) for row, column in faults[:32]]
        values: Sequence[float] = memoryview(data).cast("f")
    else:
        values = memoryview(data).cast("f")
        if plain and math.isfinite(sum(values)):
            return
        places = [
            divmod(at, len(columns))
            for at, value in enumerate(values)
            if not _fits(value, *columns[at % len(columns)])
        ]
    for row, column in places:
        value = values[row * len(columns) + column]
        violations.add(field, f"row {row}: {_value_fault(value, features[column])}")


def _fits(value: float, categories: int, optional: bool) -> bool:
    if value != value:
        return optional
    if categories:
        return 0 <= value < categories and value == int(value)
    return -LARGEST_FLOAT <= value <= LARGEST_FLOAT


def _unfit(matrix: NDArray[np.float32], columns: Sequence[tuple[int, bool]]) -> NDArray[np.bool_]:
    unfit = ~np.isfinite(matrix)
    for at, (categories, optional) in enumerate(columns):
        column = matrix[:, at]
        if categories:
            unfit[:, at] |= (column < 0) | (column >= categories) | (column != np.floor(column))
        if optional:
            unfit[:, at] &= ~np.isnan(column)
    return unfit


def _value_fault(value: float, feature: Feature) -> str:
    name = quote(feature.name)
    if math.isnan(value):
        return f"feature {name} is NaN, and not optional"
    if feature.categories:
        return f"feature {name} is {value:g}; its {len(feature.categories)} categories count from 0"
    return f"feature {name} is infinite"


def _read_rows(
    rows: Sequence[pb.FeatureRow], features: Sequence[Feature], violations: Violations
) -> array[float]:
    columns = [_column(feature) for feature in features]
    values: list[float] = []
    for index, row in enumerate(rows):
        given = row.features
        get = given.get
        found = 0
        for column in columns:
            name, codes, optional = column
            value = get(name)
            if value is None:
                number = math.nan if optional else None
            else:
                found += 1
                if codes is not None:
                    category = value.category
                    named = category or value.WhichOneof("kind") == "category"
                    number = codes.get(category) if named else None
                # A set number is seldom 0, so asking for its kind first would be wasted.
                elif not ((number := value.number) and -LARGEST_FLOAT <= number <= LARGEST_FLOAT):
                    number = _rare_number(value, optional)
            if number is None:
                field = f'rows.rows[{index}].features["{name}"]'
                violations.add(field, _feature_fault(value, codes))
            else:
                values.append(number)
        if found != len(given):
            _note_unknown(index, given, columns, violations)
        if violations.full:
            break
    return array("f", values)


def _column(feature: Feature) -> Column:
    categories = feature.categories
    codes = {text: float(code) for code, text in enumerate(categories)} if categories else None
    return feature.name, codes, feature.optional


def _rare_number(value: pb.FeatureValue, optional: bool) -> float | None:
    """The number of a value that is 0, a truth value, NaN, or does not fit (None)."""
    kind = value.WhichOneof("kind")
    if kind == "number":
        number = value.number
        return number if number == 0 or (optional and number != number) else None
    return float(value.flag) if kind == "flag" else None


def _feature_fault(value: pb.FeatureValue | None, codes: Mapping[str, float] | None) -> str:
    if value is None:
        return "is missing"
    kind = value.WhichOneof("kind")
    if kind is None:
        return "has no value"
    if codes is not None:
        named = ", ".join(quote(code) for code in list(codes)[:MOST_NAMED_CATEGORIES])
        if len(codes) > MOST_NAMED_CATEGORIES:
            named += ", ..."
        given = quote(value.category) if kind == "category" else f"a {kind}"
        return f"is {given}, not a category of {named}"
    if kind == "category":
        return f"is {quote(value.category)}, not a number"
    if math.isnan(value.number):
        return "is NaN, and not optional"
    return f"is {value.number:g}, beyond 32-bit floats"


def _note_unknown(
    index: int,
    given: Mapping[str, pb.FeatureValue],
    columns: Sequence[Column],
    violations: Violations,
) -> None:
    known = {name for name, _, _ in columns}
    for name in sorted(given):
        if name not in known:
            violations.add(
                f"rows.rows[{index}].features", f"has {quote(name)}, which the model does not know"
            )
