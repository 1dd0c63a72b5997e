"""Every Redis key that two services share; nothing else spells one.

Control Redis: permanent unless said otherwise. Soft Redis: may vanish at any moment.
"""

from __future__ import annotations

# Control Redis

MODELS = "penstock:models"
"""Hash: model name -> ModelRecord as JSON. Permanent."""
API_KEYS = "penstock:keys"
"""Set of API key ids. Permanent."""


def api_key(key_id: str) -> str:
    """KeyRecord as JSON. Permanent: a revoked key stays, marked."""
    return f"penstock:key:{key_id}"


# Soft Redis

REPLICAS = "penstock:replicas"
"""Set of replica ids. Permanent; ids whose record has expired are swept by readers."""


def replica(replica_id: str) -> str:
    """ReplicaRecord as JSON. Expires 6 s after the last heartbeat."""
    return f"penstock:replica:{replica_id}"


FAILURES = "penstock:failures"
"""Set of ``<name>:<version>`` that could not be loaded. Permanent; swept like REPLICAS."""


def failed(name: str, version: str) -> str:
    """Why a version cannot be loaded, as text. Expires unless the failure is seen again."""
    return f"penstock:failed:{name}:{version}"
