"""Every Redis key that only the gateway uses."""

from __future__ import annotations


def request_bucket(key_id: str) -> str:
    """Soft Redis. Hash {level, at}: an API key's bucket of requests. Expires when full."""
    return f"penstock:bucket:requests:{key_id}"
