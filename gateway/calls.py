"""One call as the gateway knows it: who makes it, until when, and what it has used."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from gateway.limits.tickets import UNLIMITED, Ticket
from penstock.api.types.v1 import metadata_pb2
from penstock.service.quotas import NO_LIMITS, Budget, Limits


@dataclass(frozen=True, slots=True)
class Quota:
    """What one subject may use; every call counts against each quota of its principal."""

    subject: str
    """``key:<id>``, ``tenant:<id>`` or ``model:<tenant>:<model>``."""
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()


_NO_MODEL_QUOTAS: Mapping[str, Quota] = {}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling and what they may do; made from verified credentials only.

    One object a credential for as long as it is trusted, so it can key caches.
    """

    tenant: str
    key_id: str
    scopes: frozenset[str]
    highest_tier: int = 1
    """The most urgent ServiceTier allowed; 1 is the most urgent there is."""
    models: Container[str] | None = None
    """The models that may be called, such as gateway.allowed_models has them; None means all."""
    regions: frozenset[str] | None = None
    """The regions in which calls may be answered; None means all."""
    quotas: tuple[Quota, ...] = ()
    """The key's and the tenant's, where they bound anything."""
    model_quotas: Mapping[str, Quota] = field(default_factory=lambda: _NO_MODEL_QUOTAS)
    """The tenant's for single models, by name."""
    audit_payloads: bool = False
    """Whether inputs and outputs are kept with audit events."""
    pseudonym_key: bytes = b""
    """Keys the tenant's digests and pseudonyms; destroyed when the tenant is erased."""

    def may_use(self, model: str) -> bool:
        """Whether the model may be called, or even be seen."""
        return self.models is None or model in self.models


@dataclass(slots=True, eq=False)
class Call:
    """One call, from its metadata to its meter reading. Times are of ``time.monotonic()``."""

    request_id: str
    method: str
    """Full name, such as /penstock.api.inference.v1.InferenceService/Classify."""
    principal: Principal
    started: float
    deadline: float
    traceparent: str = ""
    """W3C trace context to pass on; empty when the caller sent none."""
    model: str = ""
    model_version: str = ""
    replica: str = ""
    region: str = ""
    """Of the replica."""
    tier: int = 0
    """The ServiceTier it runs at; 0 until that is known."""
    resource_id: str = ""
    """The file, batch, job, tenant or key that it is about."""
    subject: str = ""
    """The end user that the caller named, as a pseudonym of the tenant."""
    usage: metadata_pb2.Usage | None = field(default=None)
    """What the call has consumed so far; the meter reads it when the call ends."""
    admitted: bool = False
    """Whether it passed every check before its work."""
    ticket: Ticket = UNLIMITED
    """What it has taken of its limits."""

    def remaining(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - time.monotonic()
