"""Prices: the most specific rule, exact sums, and files that cannot be used."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.api.types.v1 import metadata_pb2 as types
from penstock.service.prices import PricesInvalid, PriceTable

INFERENCE, EMBEDDINGS = types.API_FAMILY_INFERENCE, types.API_FAMILY_EMBEDDINGS
STANDARD, BATCH = types.SERVICE_TIER_STANDARD, types.SERVICE_TIER_BATCH
TABLE = """
currency: EUR
prices:
  - {unit: token, input: 1, output: 2}
  - {unit: token, tier: batch, input: 0.5, output: 1}
  - {unit: token, family: embeddings, input: 0.02}
  - {unit: token, model: "story*", input: 3, output: 4}
  - {unit: token, model: "storyteller*", input: 5, output: 6}
  - {unit: token, model: storyteller, input: 7.000001, output: 8}
  - {unit: row, model: fraud, input: 100}
"""


def table(folder: Path, text: str = TABLE) -> PriceTable:
    path = folder / "prices.yaml"
    path.write_text(text)
    return PriceTable.read(str(path))


def tokens(read: int, written: int = 0) -> types.Usage:
    return types.Usage(input_units=read, output_units=written, unit=types.USAGE_UNIT_TOKEN)


@pytest.mark.parametrize(
    ("family", "model", "tier", "micros"),
    [
        (INFERENCE, "other", STANDARD, 1_000_000 + 2_000_000),
        (INFERENCE, "other", BATCH, 500_000 + 1_000_000),
        (EMBEDDINGS, "other", STANDARD, 20_000),
        (EMBEDDINGS, "other", BATCH, 20_000),
        (INFERENCE, "story", STANDARD, 7_000_000),
        (EMBEDDINGS, "storyline", BATCH, 7_000_000),
        (INFERENCE, "storyteller-2", STANDARD, 11_000_000),
        (INFERENCE, "storyteller", BATCH, 15_000_001),
    ],
)
def test_the_most_specific_price_counts(
    tmp_path: Path, family: int, model: str, tier: int, micros: int
) -> None:
    usage = tokens(1_000_000, 1_000_000)
    assert table(tmp_path).cost_micros(family, model, tier, usage) == micros


def test_a_unit_without_a_price_costs_nothing(tmp_path: Path) -> None:
    prices = table(tmp_path)
    rows = types.Usage(input_units=5, unit=types.USAGE_UNIT_ROW)
    assert prices.cost_micros(INFERENCE, "fraud", STANDARD, rows) == 500
    assert prices.cost_micros(INFERENCE, "diabetes", STANDARD, rows) == 0


def test_without_a_file_there_is_no_currency_and_no_cost() -> None:
    prices = PriceTable.read("")
    assert prices.currency == ""
    assert prices.cost_micros(INFERENCE, "story", STANDARD, tokens(10**12)) == 0


@given(read=st.integers(0, 10**13), written=st.integers(0, 10**13))
def test_the_sum_is_exact_and_rounded_once(
    tmp_path_factory: pytest.TempPathFactory, read: int, written: int
) -> None:
    prices = table(
        tmp_path_factory.getbasetemp(),
        "currency: USD\nprices: [{unit: token, input: 0.15, output: '0.600001'}]",
    )
    exact = read * Fraction("0.15") + written * Fraction("0.600001")
    cost = prices.cost_micros(INFERENCE, "m", STANDARD, tokens(read, written))
    assert cost == int(exact + Fraction(1, 2))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("currency: EUR\nprices: [{unit: token, input: -1}]", "prices.0.input"),
        ("currency: EUR\nprices: [{unit: token, input: 0.0000001}]", "prices.0.input"),
        ("currency: EUR\nprices: [{unit: parsec, input: 1}]", "prices.0.unit: .*token, row"),
        ("currency: EUR\nprices: [{unit: token, model: 'a*b', input: 1}]", "prices.0.model"),
        ("currency: EUR\nprices: [{unit: token, tiers: batch}]", "prices.0.tiers"),
        ("currency: EUR\nprices: [{unit: token}, {unit: token, input: 1}]", "two prices"),
        ("currency: euros\nprices: [{unit: token}]", "currency"),
        ("prices: [{unit: token}]", "currency"),
        ("currency: [", "prices.yaml"),
        ("", "prices.yaml"),
    ],
)
def test_a_bad_file_is_refused_and_says_where(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(PricesInvalid, match=told):
        table(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PricesInvalid, match="nowhere"):
        PriceTable.read(str(tmp_path / "nowhere.yaml"))
