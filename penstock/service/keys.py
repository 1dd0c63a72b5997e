"""Every Redis key that two services share; nothing else spells one.

Control Redis: permanent unless said otherwise. Soft Redis: may vanish at any moment.
"""

from __future__ import annotations

# Control Redis

MODELS = "penstock:models"
"""Hash: model name -> ModelRecord as JSON. Permanent."""
API_KEYS = "penstock:keys:by-time"
"""Sorted set of ``<microseconds of creation, 16 hex digits>:<key id>``, all scores 0. Permanent."""
KEY_USES = "penstock:keys:last-use"
"""Hash: key id -> Unix seconds of its last use, to within a minute. Permanent."""
BOOTSTRAP = "penstock:bootstrap"
"""The tenant of the cluster's first key. Permanent: there is only one first."""


def api_key(key_id: str) -> str:
    """KeyRecord as JSON. Permanent: a revoked key stays, marked."""
    return f"penstock:key:{key_id}"


def idempotency(tenant_id: str, operation: str, chosen: str) -> str:
    """JSON {request, made}: what a create call made. Expires after 24 hours."""
    return f"penstock:once:{tenant_id}:{operation}:{chosen}"


TENANTS = "penstock:tenants"
"""Sorted set of tenant ids, all scores 0. Permanent."""


def tenant(tenant_id: str) -> str:
    """TenantRecord as JSON. Permanent: an erased tenant stays, emptied."""
    return f"penstock:tenant:{tenant_id}"


def tenant_keys(tenant_id: str) -> str:
    """Sorted set of the tenant's keys, as API_KEYS. Permanent."""
    return f"penstock:tenant:{tenant_id}:keys"


def pseudonym_key(tenant_id: str) -> str:
    """32 random bytes that key a tenant's digests and pseudonyms. Permanent until it is erased."""
    return f"penstock:tenant:{tenant_id}:pseudonym"


def identity(kind: str, value: str) -> str:
    """Id of the key that a SPIFFE id, or a token's issuer and subject, stands for, revoked or not.
    Permanent until the key's tenant is erased."""
    return f"penstock:identity:{kind}:{value}"


LEDGER_OUTBOX = "penstock:ledger:outbox"
"""Stream of shipped batches of events, until they are sealed (penstock.service.ledger.outbox)."""
LEDGER_MARKS = "penstock:ledger:marks"
"""Hash: source -> the last sequence shipped. Permanent; a source's field goes once it is sealed and
closed."""
LEDGER_SEALED = "penstock:ledger:sealed"
"""Hash: source -> the last sequence in a sealed segment. Permanent, as LEDGER_MARKS."""
LEDGER_HEADS = "penstock:ledger:heads"
"""Hash: ledger (``usage`` or ``audit``) -> its last segment's link as JSON. Permanent."""


def usage_day(tenant_id: str, day: str) -> str:
    """Hash of a tenant's sums of one UTC day (YYYY-MM-DD). Permanent: bills are made from it."""
    return f"penstock:usage:{tenant_id}:{day}"


USAGE_DAYS = "penstock:usage:days"
"""Sorted set of ``<YYYY-MM-DD> <tenant>``, all of score 0: which usage_day hashes there are.
Permanent."""


def budget(subject: str, counted: str, period: str) -> str:
    """Hash {spent, r:<source>}: what is spent, and what each source holds in reserve. ``counted``
    is a unit's number or a currency, ``period`` a day, a month or ``total``. Expires a week after
    its period; ``total`` is permanent."""
    return f"penstock:budget:{subject}:{counted}:{period}"


def budget_holdings(source: str) -> str:
    """Set of the budgets that a source holds something of. Permanent until the source is closed."""
    return f"penstock:budgets:{source}"


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
