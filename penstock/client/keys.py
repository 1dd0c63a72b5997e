"""The SDK's methods that keep keys; for keys with the scopes admin:read and admin:write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from penstock.api.admin.v1 import keys_pb2 as pb
from penstock.api.admin.v1.keys_pb2_grpc import KeysServiceStub
from penstock.client.operations import Paged, Unary


def create_key(
    tenant: str | pb.Key,
    scopes: Sequence[str] = (),
    *,
    idempotency_key: str = "",
    timeout: float | None = None,
    **fields: Any,
) -> Unary[pb.CreateKeyResponse]:
    """Adds a key for a tenant; ``fields`` are those of the contract's Key, such as
    ``display_name="shop"`` or ``credential=``. The answer's ``api_key`` is the text that its bearer
    needs, and comes once; ``key`` describes it.

    ``timeout`` is in seconds. Raises TenantNotFound, TenantErased, IdentityExists, InvalidArgument,
    IdempotencyConflict, ScopeMissing (also for a scope that the caller lacks).
    """
    described = pb.Key(scopes=scopes, **fields)
    if isinstance(tenant, str):
        described.tenant_id = tenant
    else:
        described = _merged(tenant, described)
    request = pb.CreateKeyRequest(key=described, idempotency_key=idempotency_key)
    return Unary(KeysServiceStub, "CreateKey", request, lambda answer: answer, timeout)


def get_key(key_id: str, *, timeout: float | None = None) -> Unary[pb.Key]:
    """One key, also a revoked one.

    ``timeout`` is in seconds. Raises KeyNotFound, ScopeMissing.
    """
    return _one("GetKey", pb.GetKeyRequest(key_id=key_id), timeout)


def list_keys(
    tenant: str = "",
    states: Collection[pb.KeyState.ValueType] = (),
    *,
    timeout: float | None = None,
) -> Paged[pb.Key]:
    """Every key, newest first; one tenant's, or those in the given states only.

    ``timeout`` is in seconds a page. Raises ScopeMissing.
    """
    request = pb.ListKeysRequest(tenant_id=tenant, states=states)
    return Paged(KeysServiceStub, "ListKeys", request, lambda page: list(page.keys), timeout)


def update_key(
    key: str | pb.Key,
    *,
    mask: Iterable[str] = (),
    timeout: float | None = None,
    **fields: Any,
) -> Unary[pb.Key]:
    """Changes the fields that ``mask`` names, such as ``scopes``; without one, every field that is
    set. With an ``etag``, only if it still fits.

    ``timeout`` is in seconds. Raises KeyNotFound, KeyRevoked, EtagMismatch, InvalidArgument,
    ScopeMissing.
    """
    described = pb.Key(**fields)
    if isinstance(key, str):
        described.id = key
    else:
        described = _merged(key, described)
    request = pb.UpdateKeyRequest(key=described, update_mask=FieldMask(paths=mask))
    return _one("UpdateKey", request, timeout)


def rotate_key(
    key_id: str,
    *,
    overlap: float | None = None,
    public_key: bytes = b"",
    idempotency_key: str = "",
    timeout: float | None = None,
) -> Unary[pb.RotateKeyResponse]:
    """Gives a key a new secret: the answer's ``api_key``, once. The old one stays good for
    ``overlap`` seconds, 24 hours by default. ``public_key`` is a signing credential's new one.

    ``timeout`` is in seconds. Raises KeyNotFound, KeyRevoked, InvalidArgument, IdempotencyConflict,
    ScopeMissing.
    """
    request = pb.RotateKeyRequest(
        key_id=key_id, ed25519_public_key=public_key, idempotency_key=idempotency_key
    )
    if overlap is not None:
        length = Duration()
        length.FromMilliseconds(round(overlap * 1000))
        request.overlap.CopyFrom(length)
    return Unary(KeysServiceStub, "RotateKey", request, lambda answer: answer, timeout)


def revoke_key(key_id: str, *, timeout: float | None = None) -> Unary[pb.Key]:
    """Ends a key for good; gateways refuse it within 5 seconds.

    ``timeout`` is in seconds. Raises KeyNotFound, ScopeMissing.
    """
    return _one("RevokeKey", pb.RevokeKeyRequest(key_id=key_id), timeout)


def _merged(key: pb.Key, fields: pb.Key) -> pb.Key:
    whole = pb.Key()
    whole.CopyFrom(key)
    whole.MergeFrom(fields)
    return whole


def _one(method: str, request: Any, timeout: float | None) -> Unary[pb.Key]:
    return Unary(KeysServiceStub, method, request, lambda answer: answer.key, timeout)
