"""One call as the gateway knows it: who makes it, until when, and what it has used."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from penstock.api.types.v1 import metadata_pb2


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling and what they may do; made from verified credentials only."""

    tenant: str
    key_id: str
    scopes: frozenset[str]
    highest_tier: int
    """The most urgent ServiceTier allowed; 1 is the most urgent there is."""
    requests_per_minute: int | None
    """None means unlimited."""
    models: frozenset[str] | None
    """The models that may be called; None means all."""

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
    usage: metadata_pb2.Usage | None = field(default=None)
    """What the call has consumed so far; the meter reads it when the call ends."""

    def remaining(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - time.monotonic()
