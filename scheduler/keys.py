"""Every Redis key that only the scheduler uses. Control Redis."""

from __future__ import annotations

import hashlib

LEDGER_SWEPT = "penstock:ledger:swept"
"""Hash: ledger -> the last segment before which no contents are left to remove. Permanent."""


def export_position(sink: str) -> str:
    """The last usage segment that a sink has taken. Permanent."""
    return f"penstock:ledger:exported:{hashlib.sha256(sink.encode()).hexdigest()[:16]}"


def turn(work: str) -> str:
    """Which scheduler does a piece of work at the moment. Expires with its turn."""
    return f"penstock:scheduler:turn:{work}"
