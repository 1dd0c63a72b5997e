"""What tenants and keys may use: limits and budgets as they are stored."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bounds on use; None takes the cluster's default, which is unlimited unless set; 0 allows
    nothing. Fields as in penstock.api.types.v1.Limits."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    requests_per_minute: int | None = Field(default=None, ge=0)
    units_per_minute: int | None = Field(default=None, ge=0)
    concurrent_calls: int | None = Field(default=None, ge=0)
    unfinished_jobs: int | None = Field(default=None, ge=0)
    rows_per_batch: int | None = Field(default=None, ge=0)
    bytes_per_file: int | None = Field(default=None, ge=0)
    stored_bytes: int | None = Field(default=None, ge=0)


NO_LIMITS = Limits()


class Budget(BaseModel):
    """What may be spent in a period of UTC."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    unit: int = Field(default=0, ge=0)
    """A UsageUnit; 0 for a budget in money."""
    amount: int = Field(ge=0)
    """Units, or millionths of the currency."""
    period: int = Field(ge=1, le=3)
    """A BudgetPeriod: 1 day, 2 month, 3 total."""
    currency: str = ""
    """ISO 4217; empty counts units."""


class ModelLimits(BaseModel):
    """What a tenant may use of one model."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()
