"""The SDK's methods that keep tenants; for keys with the scopes admin:read and admin:write."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from penstock.api.admin.v1 import tenants_pb2 as pb
from penstock.api.admin.v1.tenants_pb2_grpc import TenantsServiceStub
from penstock.client.operations import Paged, Unary


def create_tenant(
    tenant: str | pb.Tenant,
    *,
    idempotency_key: str = "",
    timeout: float | None = None,
    **fields: Any,
) -> Unary[pb.Tenant]:
    """Adds a tenant; ``fields`` are those of the contract's Tenant, such as ``weight=50``.

    ``timeout`` is in seconds. Raises TenantExists, InvalidArgument, IdempotencyConflict,
    ScopeMissing.
    """
    described = _described(tenant, fields)
    request = pb.CreateTenantRequest(tenant=described, idempotency_key=idempotency_key)
    return _one("CreateTenant", request, timeout)


def get_tenant(tenant_id: str, *, timeout: float | None = None) -> Unary[pb.Tenant]:
    """One tenant, also an erased one.

    ``timeout`` is in seconds. Raises TenantNotFound, ScopeMissing.
    """
    return _one("GetTenant", pb.GetTenantRequest(tenant_id=tenant_id), timeout)


def list_tenants(
    states: Collection[pb.TenantState.ValueType] = (), *, timeout: float | None = None
) -> Paged[pb.Tenant]:
    """Every tenant by id, those in the given states only; without any, all but the erased.

    ``timeout`` is in seconds a page. Raises ScopeMissing.
    """
    request = pb.ListTenantsRequest(states=states)
    return Paged(
        TenantsServiceStub, "ListTenants", request, lambda page: list(page.tenants), timeout
    )


def update_tenant(
    tenant: str | pb.Tenant,
    *,
    mask: Iterable[str] = (),
    timeout: float | None = None,
    **fields: Any,
) -> Unary[pb.Tenant]:
    """Changes the fields that ``mask`` names, such as ``limits.requests_per_minute``; without one,
    every field that is set. With an ``etag``, only if it still fits.

    ``timeout`` is in seconds. Raises TenantNotFound, TenantErased, EtagMismatch, InvalidArgument,
    ScopeMissing.
    """
    request = pb.UpdateTenantRequest(
        tenant=_described(tenant, fields), update_mask=FieldMask(paths=mask)
    )
    return _one("UpdateTenant", request, timeout)


def suspend_tenant(tenant_id: str, *, timeout: float | None = None) -> Unary[pb.Tenant]:
    """Has the tenant's calls refused within 5 seconds, until it is resumed.

    ``timeout`` is in seconds. Raises TenantNotFound, TenantErased, ScopeMissing.
    """
    return _one("SuspendTenant", pb.SuspendTenantRequest(tenant_id=tenant_id), timeout)


def resume_tenant(tenant_id: str, *, timeout: float | None = None) -> Unary[pb.Tenant]:
    """Ends a suspension.

    ``timeout`` is in seconds. Raises TenantNotFound, TenantErased, ScopeMissing.
    """
    return _one("ResumeTenant", pb.ResumeTenantRequest(tenant_id=tenant_id), timeout)


def erase_tenant(tenant_id: str, etag: str, *, timeout: float | None = None) -> Unary[pb.Tenant]:
    """Ends a tenant for good; ``etag`` shows that it was looked at.

    ``timeout`` is in seconds. Raises TenantNotFound, EtagMismatch, ScopeMissing.
    """
    request = pb.EraseTenantRequest(tenant_id=tenant_id, etag=etag)
    return _one("EraseTenant", request, timeout)


def _described(tenant: str | pb.Tenant, fields: dict[str, Any]) -> pb.Tenant:
    described = pb.Tenant(**fields)
    if isinstance(tenant, str):
        described.id = tenant
        return described
    whole = pb.Tenant()
    whole.CopyFrom(tenant)
    whole.MergeFrom(described)
    return whole


def _one(method: str, request: Any, timeout: float | None) -> Unary[pb.Tenant]:
    return Unary(TenantsServiceStub, method, request, lambda answer: answer.tenant, timeout)
