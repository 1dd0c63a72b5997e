"""Every Redis key that only the gateway uses."""

from __future__ import annotations

# Soft Redis

SOFT_BIRTH = "penstock:soft:birth"
"""Hash {at, run}: since when this soft Redis has known every lease, and in which run of the server.
Permanent, and gone when the soft Redis is emptied: so a loss is noticed."""


def bucket(kind: str, subject: str) -> str:
    """Hash {level, at, born, <source>:<piece>}: what is left of a rate and who may still use what.
    Expires when it is full."""
    return f"penstock:bucket:{kind}:{subject}"


def slots(subject: str) -> str:
    """Hash {alive, born, <source>}: how many calls each gateway may have open. Expires an hour
    after its last use."""
    return f"penstock:slots:{subject}"


# Control Redis


def nonce(key_id: str, value: str) -> str:
    """Exists once a signed request has used the nonce. Expires when its time stamp is too old to
    pass anywhere."""
    return f"penstock:nonce:{key_id}:{value}"


SOFT_KNOWN = "penstock:soft:known"
"""Set once a soft Redis was first used for limits, so that an empty one means a loss. Permanent."""


def budget_answers(source: str) -> str:
    """Hash: budget -> the last request about it and its answer, so that a repeat changes nothing.
    Expires a day after its last use."""
    return f"penstock:budget-answers:{source}"
