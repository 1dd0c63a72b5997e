"""Create calls that may be repeated: what a caller's idempotency key made, for 24 hours."""

from __future__ import annotations

import json
from dataclasses import dataclass

from redis.asyncio.client import Pipeline

from penstock.errors import IdempotencyConflict
from penstock.service import keys
from penstock.service.redis import read

IDEMPOTENCY_SECONDS = 86_400
"""How long a repeated call is recognised."""


@dataclass(frozen=True, slots=True)
class Once:
    """One create call that its caller may repeat."""

    tenant: str
    """Of the caller: other tenants may use the same text."""
    operation: str
    """The rpc's name."""
    chosen: str
    """The caller's idempotency key."""
    request_digest: str
    """Of all else that was asked; a repeat asks the same."""

    @property
    def key(self) -> str:
        """The Redis key, to be watched by the transaction that makes the thing."""
        return keys.idempotency(self.tenant, self.operation, self.chosen)

    async def made(self, pipe: Pipeline) -> str | None:
        """The id of what the first call made. Raises IdempotencyConflict for another request."""
        text = await read(pipe, self.key)
        if text is None:
            return None
        first = json.loads(text)
        if first["request"] != self.request_digest:
            raise IdempotencyConflict(
                "the idempotency key was used for another request within 24 hours"
            )
        return str(first["made"])

    def remember(self, pipe: Pipeline, made: str) -> None:
        """Queues the note that this call made the thing of that id."""
        note = json.dumps({"request": self.request_digest, "made": made})
        pipe.set(self.key, note, ex=IDEMPOTENCY_SECONDS)
