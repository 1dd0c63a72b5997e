"""Keys and their credentials between the contract's messages and the stored records."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.adapters.allowances import (
    budget_messages,
    budgets_of,
    limits_message,
    limits_of,
    timestamp,
    unix_seconds,
)
from penstock.api.admin.v1 import keys_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.service.credentials import (
    API_KEY_PREFIX,
    SIGNING_SECRET_PREFIX,
    CredentialKind,
    KeyDraft,
    KeyRecord,
    KeyState,
)

STATES: Mapping[KeyState, pb.KeyState.ValueType] = {
    "active": pb.KEY_STATE_ACTIVE,
    "expired": pb.KEY_STATE_EXPIRED,
    "revoked": pb.KEY_STATE_REVOKED,
}
STATE_NAMES: Mapping[int, KeyState] = {number: name for name, number in STATES.items()}

FIXED = frozenset(
    {
        "id",
        "tenant_id",
        "state",
        "credential",
        "etag",
        "create_time",
        "revoke_time",
        "rotate_time",
        "last_use_time",
    }
)
"""Fields that no update changes."""

_KINDS: Mapping[str | None, CredentialKind] = {
    None: "api_key",
    "api_key": "api_key",
    "signing": "ed25519",
    "hmac": "hmac",
    "spiffe": "spiffe",
    "jwt": "jwt",
}


def key_message(record: KeyRecord, last_use: float | None = None) -> pb.Key:
    """One key as operators see it."""
    return pb.Key(
        id=record.id,
        tenant_id=record.tenant,
        display_name=record.name,
        state=STATES[record.state()],
        credential=_credential_message(record),
        scopes=record.scopes,
        highest_tier=metadata_pb2.ServiceTier.ValueType(record.highest_tier),
        limits=limits_message(record.limits),
        budgets=budget_messages(record.budgets),
        allowed_models=record.models,
        allowed_regions=record.regions,
        labels=record.labels,
        etag=record.etag,
        create_time=timestamp(record.created_at),
        expire_time=timestamp(record.expires_at),
        revoke_time=timestamp(record.revoked_at),
        rotate_time=timestamp(record.rotated_at),
        last_use_time=timestamp(last_use),
    )


def key_draft(message: pb.Key, highest_tier: int) -> KeyDraft:
    """A new key; ``highest_tier`` is the one that it gets when the message names none."""
    credential = message.credential
    kind = _KINDS[credential.WhichOneof("kind")]
    identity = credential.spiffe.spiffe_id
    if kind == "jwt":
        identity = f"{credential.jwt.issuer} {credential.jwt.subject}"
    return KeyDraft(
        tenant=message.tenant_id,
        name=message.display_name,
        credential=kind,
        identity=identity,
        scopes=tuple(message.scopes),
        highest_tier=message.highest_tier or highest_tier,
        limits=limits_of(message.limits),
        budgets=budgets_of(message.budgets),
        models=tuple(message.allowed_models) or None,
        regions=tuple(message.allowed_regions) or None,
        labels=dict(message.labels),
        expires_at=unix_seconds(message.expire_time) if message.HasField("expire_time") else None,
    )


def changed_key(message: pb.Key, stored: KeyRecord, highest_tier: int) -> KeyRecord:
    """The stored key with the message's fields, but for those that are fixed."""
    draft = key_draft(message, highest_tier)
    changes = draft.model_copy(update={"scopes": tuple(sorted(set(draft.scopes)))})
    fixed = {"tenant", "credential", "identity"}
    return stored.model_copy(
        update={name: getattr(changes, name) for name in KeyDraft.model_fields if name not in fixed}
    )


def _credential_message(record: KeyRecord) -> pb.Credential:
    match record.credential:
        case "api_key":
            prefix = f"{API_KEY_PREFIX}_{record.id}"
            return pb.Credential(api_key=pb.ApiKeyCredential(prefix=prefix))
        case "hmac":
            prefix = f"{SIGNING_SECRET_PREFIX}_{record.id}"
            return pb.Credential(hmac=pb.HmacCredential(prefix=prefix))
        case "ed25519":
            public_key = bytes.fromhex(record.proofs[0].value) if record.proofs else b""
            return pb.Credential(signing=pb.SigningCredential(ed25519_public_key=public_key))
        case "spiffe":
            return pb.Credential(spiffe=pb.SpiffeCredential(spiffe_id=record.identity))
        case "jwt":
            issuer, _, subject = record.identity.partition(" ")
            return pb.Credential(jwt=pb.JwtCredential(issuer=issuer, subject=subject))
