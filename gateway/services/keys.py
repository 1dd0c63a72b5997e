"""KeysService: the cluster's operators keep the keys of its tenants."""

from __future__ import annotations

import time
from collections.abc import Iterable

from gateway.adapters.allowances import unix_seconds
from gateway.adapters.field_masks import merged
from gateway.adapters.keys import FIXED, STATE_NAMES, changed_key, key_draft, key_message
from gateway.authorisation import holds
from gateway.calls import Call
from gateway.services.idempotency import once_of
from gateway.validation.admin import (
    Cluster,
    check_credential,
    check_idempotency_key,
    check_key,
    check_list,
    check_overlap,
    check_public_key,
    check_within,
    seconds_of,
)
from gateway.validation.fields import Violations
from gateway.validation.pages import DEFAULT_PAGE_SIZE, page_token, read_page_token
from penstock.api.admin.v1 import keys_pb2 as pb
from penstock.errors import KeyRevoked, ScopeMissing
from penstock.service.api_keys import KeyRecord, KeyStore
from penstock.service.tenants import TenantStore

DEFAULT_OVERLAP_SECONDS = 86_400.0
"""How long a rotated key's old secret stays good when the caller does not say."""


class KeysService:
    """Each method is one change or look-up in the store; no caller gives away what it lacks."""

    def __init__(self, keys: KeyStore, tenants: TenantStore, cluster: Cluster) -> None:
        self._keys = keys
        self._tenants = tenants
        self._cluster = cluster

    async def CreateKey(self, request: pb.CreateKeyRequest, call: Call) -> pb.CreateKeyResponse:
        """Adds a key; its text leaves once."""
        key = request.key
        violations = Violations()
        check_key(key, self._cluster, violations)
        check_credential(key.credential, self._cluster, violations)
        check_idempotency_key(request.idempotency_key, violations)
        if not key.tenant_id:
            violations.add("key.tenant_id", "is required")
        if key.HasField("expire_time") and unix_seconds(key.expire_time) <= time.time():
            violations.add("key.expire_time", "has passed")
        violations.refuse()
        _check_scopes(key.scopes, call)
        tenant = await self._tenants.get(key.tenant_id)
        check_within(key, tenant, violations)
        violations.refuse()
        record, text = await self._keys.add(
            key_draft(key, tenant.highest_tier),
            public_key=key.credential.signing.ed25519_public_key.hex(),
            once=once_of(request, call),
        )
        call.resource_id = record.id
        return pb.CreateKeyResponse(key=key_message(record), api_key=text)

    async def GetKey(self, request: pb.GetKeyRequest, call: Call) -> pb.GetKeyResponse:
        """One key, revoked ones too."""
        call.resource_id = request.key_id
        return pb.GetKeyResponse(key=await self._described(await self._keys.get(request.key_id)))

    async def ListKeys(self, request: pb.ListKeysRequest, call: Call) -> pb.ListKeysResponse:
        """The keys, newest first."""
        check_list(request, max(STATE_NAMES))
        records, after = await self._keys.list(
            after=read_page_token(request.page_token),
            most=request.page_size or DEFAULT_PAGE_SIZE,
            tenant=request.tenant_id,
            states=[STATE_NAMES[state] for state in request.states],
        )
        uses = await self._keys.last_uses([record.id for record in records])
        found = [key_message(record, use) for record, use in zip(records, uses, strict=True)]
        return pb.ListKeysResponse(keys=found, next_page_token=page_token(after))

    async def UpdateKey(self, request: pb.UpdateKeyRequest, call: Call) -> pb.UpdateKeyResponse:
        """Changes the fields that the mask names; new values must be within the tenant's."""
        call.resource_id = request.key.id
        key = await self._keys.get(request.key.id)
        tenant = await self._tenants.get(key.tenant)

        def change(stored: KeyRecord) -> KeyRecord:
            before = key_message(stored)
            after = merged(before, request.key, request.update_mask, FIXED)
            violations = Violations()
            check_key(after, self._cluster, violations)
            check_within(_news(before, after), tenant, violations)
            violations.refuse()
            # What it holds already is not given away, and may be narrowed.
            _check_scopes((s for s in after.scopes if not holds(stored.scopes, s)), call)
            return changed_key(after, stored, tenant.highest_tier)

        record = await self._keys.update(request.key.id, change, etag=request.key.etag)
        return pb.UpdateKeyResponse(key=await self._described(record))

    async def RotateKey(self, request: pb.RotateKeyRequest, call: Call) -> pb.RotateKeyResponse:
        """Renews the secret; whoever gets it must hold the key's scopes."""
        call.resource_id = request.key_id
        key = await self._keys.get(request.key_id)
        if key.revoked_at is not None:
            raise KeyRevoked(f"key {key.id!r} was revoked")
        violations = Violations()
        check_overlap(request, violations)
        check_idempotency_key(request.idempotency_key, violations)
        if key.credential == "ed25519":
            check_public_key("ed25519_public_key", request.ed25519_public_key, violations)
        elif request.ed25519_public_key:
            violations.add("ed25519_public_key", f"does not fit a credential of {key.credential}")
        violations.refuse()
        _check_scopes(key.scopes, call)
        overlap = request.overlap if request.HasField("overlap") else None
        record, text = await self._keys.rotate(
            key.id,
            overlap_seconds=DEFAULT_OVERLAP_SECONDS if overlap is None else seconds_of(overlap),
            public_key=request.ed25519_public_key.hex(),
            once=once_of(request, call),
        )
        return pb.RotateKeyResponse(key=await self._described(record), api_key=text)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, call: Call) -> pb.RevokeKeyResponse:
        """Ends it for good."""
        call.resource_id = request.key_id
        record = await self._keys.revoke(request.key_id)
        return pb.RevokeKeyResponse(key=await self._described(record))

    async def _described(self, record: KeyRecord) -> pb.Key:
        (last_use,) = await self._keys.last_uses([record.id])
        return key_message(record, last_use)


def _news(before: pb.Key, after: pb.Key) -> pb.Key:
    """What an update widens: a key that its tenant has since outgrown can still be renamed."""
    news = pb.Key()
    if after.highest_tier != before.highest_tier:
        news.highest_tier = after.highest_tier
    if after.allowed_models != before.allowed_models:
        news.allowed_models.extend(after.allowed_models)
    if after.allowed_regions != before.allowed_regions:
        news.allowed_regions.extend(after.allowed_regions)
    return news


def _check_scopes(scopes: Iterable[str], call: Call) -> None:
    for scope in scopes:
        if not holds(call.principal.scopes, scope):
            raise ScopeMissing(scope)
