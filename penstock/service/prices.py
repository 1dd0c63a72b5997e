"""What usage costs: a table of prices, read once from a YAML file.

    currency: EUR
    prices:
      - {unit: token, input: 0.10, output: 0.40}
      - {unit: token, model: "story*", family: inference, tier: batch, input: 0.05, output: 0.2}

A price is for 1,000,000 units, so as a number it is also the millionths that one unit costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from penstock.api.types.v1 import metadata_pb2

_FINEST = 1_000_000
"""Prices have at most six decimals."""
_CACHED = 10_000
_FAMILIES = {
    name.removeprefix("API_FAMILY_").lower(): value
    for name, value in metadata_pb2.ApiFamily.items()
    if value
}
_TIERS = {
    name.removeprefix("SERVICE_TIER_").lower(): value
    for name, value in metadata_pb2.ServiceTier.items()
    if value
}
_UNITS = {
    name.removeprefix("USAGE_UNIT_").lower(): value
    for name, value in metadata_pb2.UsageUnit.items()
    if value
}


class PricesInvalid(Exception):
    """The price file cannot be used; the message says where and why."""


class Price(BaseModel):
    """One rule; what it leaves open fits everything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: int
    """A UsageUnit; in the file its name, such as token."""
    model: str = "*"
    """A name, or a prefix and ``*``."""
    family: int = 0
    """An ApiFamily; in the file its name, such as embeddings."""
    tier: int = 0
    """A ServiceTier; in the file its name, such as batch."""
    input: Decimal = Field(default=Decimal(0), ge=0, max_digits=15, decimal_places=6)
    """For 1,000,000 units read, in the currency."""
    output: Decimal = Field(default=Decimal(0), ge=0, max_digits=15, decimal_places=6)
    """For 1,000,000 units produced, in the currency."""

    @field_validator("unit", mode="before")
    @classmethod
    def _unit(cls, given: Any) -> int:
        return _named(given, _UNITS)

    @field_validator("family", mode="before")
    @classmethod
    def _family(cls, given: Any) -> int:
        return _named(given, _FAMILIES)

    @field_validator("tier", mode="before")
    @classmethod
    def _tier(cls, given: Any) -> int:
        return _named(given, _TIERS)

    @field_validator("model")
    @classmethod
    def _star_ends_it(cls, model: str) -> str:
        if not model or "*" in model[:-1]:
            raise ValueError("a model's name, or a prefix that ends in *")
        return model

    def fits(self, family: int, model: str, tier: int, unit: int) -> bool:
        """Whether it is a price of this usage."""
        named = model.startswith(self.model[:-1]) if self.model[-1] == "*" else model == self.model
        return named and self.unit == unit and self.family in (0, family) and self.tier in (0, tier)

    def rank(self) -> tuple[bool, int, bool, bool]:
        """Higher is more specific: a whole name, a longer prefix, then a family, then a tier."""
        exact = self.model[-1] != "*"
        return exact, len(self.model), self.family != 0, self.tier != 0


class _PriceFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field(pattern="^[A-Z]{3}$")
    prices: tuple[Price, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _no_two_alike(self) -> _PriceFile:
        seen = set()
        for price in self.prices:
            fits = (price.unit, price.model, price.family, price.tier)
            if fits in seen:
                raise ValueError(f"two prices fit the same usage: model {price.model!r}")
            seen.add(fits)
        return self


class PriceTable:
    """Turns usage into money."""

    def __init__(self, currency: str = "", prices: tuple[Price, ...] = ()) -> None:
        self.currency = currency
        """ISO 4217; empty where nothing has a price."""
        self._prices = sorted(prices, key=Price.rank, reverse=True)
        self._found = lru_cache(_CACHED)(self._find)

    @classmethod
    def read(cls, path: str) -> PriceTable:
        """The table in the file; one without prices if ``path`` is empty. Raises PricesInvalid."""
        if not path:
            return cls()
        try:
            read = _PriceFile.model_validate(yaml.safe_load(Path(path).read_text()))
        except ValidationError as error:
            told = "; ".join(
                ".".join(str(part) for part in mistake["loc"]) + f": {mistake['msg']}"
                for mistake in error.errors()
            )
            raise PricesInvalid(f"{path}: {told}") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise PricesInvalid(f"{path}: {error}") from None
        return cls(read.currency, read.prices)

    def cost_micros(self, family: int, model: str, tier: int, usage: metadata_pb2.Usage) -> int:
        """What it costs in millionths of the currency; 0 where no price fits.

        Exact: input and output are added first, and the sum is rounded to the nearest millionth,
        halves up. More usage never costs less.
        """
        read, produced = self._found(family, model, tier, usage.unit)
        cost = usage.input_units * read + usage.output_units * produced
        return (cost + _FINEST // 2) // _FINEST

    def _find(self, family: int, model: str, tier: int, unit: int) -> tuple[int, int]:
        for price in self._prices:
            if price.fits(family, model, tier, unit):
                return int(price.input * _FINEST), int(price.output * _FINEST)
        return 0, 0


def _named(given: Any, names: Mapping[str, int]) -> int:
    if not isinstance(given, str) or given not in names:
        raise ValueError("one of " + ", ".join(names))
    return names[given]
