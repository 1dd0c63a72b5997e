"""Every Redis key that only the gateway uses."""

from __future__ import annotations


def request_bucket(subject: str) -> str:
    """Soft Redis. Hash {level, at}: a quota's bucket of requests. Expires when full."""
    return f"penstock:bucket:requests:{subject}"
