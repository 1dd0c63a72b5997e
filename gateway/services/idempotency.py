"""What makes a create call repeatable: its idempotency key, and a digest of all else it asks."""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.calls import Call
from penstock.service.idempotency import Once


def once_of(request: Any, call: Call) -> Once | None:
    """The call as the stores recognise a repeat of it; None when it names no idempotency key."""
    if not request.idempotency_key:
        return None
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("idempotency_key")
    digest = hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()
    operation = call.method.rpartition("/")[2]
    return Once(call.principal.tenant, operation, request.idempotency_key, digest)
