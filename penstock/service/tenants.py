"""Tenants: who they are, what they may use, how long their data is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.quotas import NO_LIMITS, Budget, Limits, ModelLimits


class Retention(BaseModel):
    """How long a tenant's data is kept, in seconds; None takes the cluster's default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: float | None = None
    jobs: float | None = None
    usage_events: float | None = None
    audit_events: float | None = None
    audit_payloads: float | None = None


class TenantRecord(BaseModel):
    """A tenant as it is stored. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    display_name: str = ""
    state: Literal["active", "suspended", "erased"] = "active"
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()
    model_limits: tuple[ModelLimits, ...] = ()
    allowed_models: tuple[str, ...] = ()
    """Names, or prefixes that end with *; empty allows all public ones."""
    allowed_regions: tuple[str, ...] = ()
    """Empty allows all."""
    highest_tier: int = Field(default=2, ge=1, le=4)
    """The most urgent ServiceTier that its keys may have; 1 is the most urgent there is."""
    weight: int = Field(default=100, ge=1, le=1000)
    retention: Retention = Retention()
    audit_payloads: bool = False
    labels: dict[str, str] = {}
    revision: int = 1
    """Grows with every change; the etag."""
    created_at: float
    updated_at: float


class TenantStore:
    """The tenants in the control Redis. Redis failures raise redis.exceptions.RedisError."""

    def __init__(self, control: Redis) -> None:
        self._redis = control

    async def find(self, tenant_id: str) -> TenantRecord | None:
        """The tenant of that id, whatever its state."""
        text = await self._redis.get(keys.tenant(tenant_id))
        return None if text is None else TenantRecord.model_validate_json(text)
