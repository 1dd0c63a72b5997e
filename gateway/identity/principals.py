"""What a key and its tenant come to together: the narrower of the two in everything."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from gateway.allowed_models import AllowedModels
from gateway.calls import Principal, Quota
from penstock.errors import FieldViolation, InvalidArgument, TenantSuspended, Unauthenticated
from penstock.service.api_keys import KeyRecord
from penstock.service.quotas import NO_LIMITS
from penstock.service.tenants import TenantRecord, TenantStore

END_USER = "x-end-user"
"""Metadata in which a caller may name its end user; kept as a pseudonym only."""
LONGEST_END_USER = 256

_MOST_PSEUDONYM_KEYS = 10_000


class Principals:
    """Makes Principals of stored records."""

    def __init__(self, tenants: TenantStore) -> None:
        self._tenants = tenants
        self._pseudonym_keys: OrderedDict[str, bytes] = OrderedDict()

    async def of(self, key: KeyRecord) -> tuple[Principal, TenantRecord]:
        """Whoever holds the key, and the tenant. Raises Unauthenticated, TenantSuspended,
        RedisError."""
        if key.state() != "active":
            raise Unauthenticated("the key has expired or was revoked")
        tenant, pseudonym_key = await asyncio.gather(
            self._tenants.find(key.tenant), self._pseudonym_key(key.tenant)
        )
        if tenant is None or tenant.state == "erased":
            raise Unauthenticated("the key's tenant does not exist")
        if tenant.state == "suspended":
            raise TenantSuspended("the tenant is suspended")
        return principal_of(key, tenant, pseudonym_key), tenant

    async def _pseudonym_key(self, tenant: str) -> bytes:
        # It never changes while the tenant lives, and nobody calls for an erased one.
        known = self._pseudonym_keys.get(tenant)
        if known is None:
            known = await self._tenants.pseudonym(tenant) or b""
            if known:
                self._pseudonym_keys[tenant] = known
            if len(self._pseudonym_keys) > _MOST_PSEUDONYM_KEYS:
                self._pseudonym_keys.popitem(last=False)
        return known


def principal_of(key: KeyRecord, tenant: TenantRecord, pseudonym_key: bytes) -> Principal:
    """The Principal of a key that is in force and its active tenant."""
    quotas = (
        Quota(f"key:{key.id}", key.limits, key.budgets),
        Quota(f"tenant:{tenant.id}", tenant.limits, tenant.budgets),
    )
    return Principal(
        tenant=tenant.id,
        key_id=key.id,
        scopes=frozenset(key.scopes),
        highest_tier=max(key.highest_tier, tenant.highest_tier),
        models=AllowedModels(tenant.id, tenant.allowed_models, key.models),
        regions=_both(key.regions, tenant.allowed_regions or None),
        quotas=tuple(q for q in quotas if q.limits != NO_LIMITS or q.budgets),
        model_quotas={
            of.model: Quota(f"model:{tenant.id}:{of.model}", of.limits, of.budgets)
            for of in tenant.model_limits
        },
        audit_payloads=tenant.audit_payloads,
        pseudonym_key=pseudonym_key,
    )


def end_user_of(principal: Principal, metadata: Mapping[str, str | bytes]) -> str:
    """The pseudonym of the end user that the caller names; empty when it names none.

    HMAC-SHA256 under the tenant's pseudonym key, the first 32 hex digits. Raises InvalidArgument.
    """
    named = metadata.get(END_USER)
    if not named:
        return ""
    if isinstance(named, bytes) or len(named) > LONGEST_END_USER:
        raise InvalidArgument(
            violations=[FieldViolation(END_USER, f"has at most {LONGEST_END_USER} characters")]
        )
    if not principal.pseudonym_key:
        return ""
    return hmac.new(principal.pseudonym_key, named.encode(), hashlib.sha256).hexdigest()[:32]


def _both(ours: Iterable[str] | None, theirs: Iterable[str] | None) -> frozenset[str] | None:
    """What both sets hold; None holds everything."""
    if ours is None or theirs is None:
        only = theirs if ours is None else ours
        return None if only is None else frozenset(only)
    return frozenset(ours) & frozenset(theirs)
