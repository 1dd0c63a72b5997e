"""Every Redis key that only the gateway uses."""

from __future__ import annotations


def request_bucket(subject: str) -> str:
    """Soft Redis. Hash {level, at}: a quota's bucket of requests. Expires when full."""
    return f"penstock:bucket:requests:{subject}"


def nonce(key_id: str, value: str) -> str:
    """Control Redis. Exists once a signed request has used the nonce. Expires when its time stamp
    is too old to pass anywhere."""
    return f"penstock:nonce:{key_id}:{value}"
