"""TenantsService: the cluster's operators keep its tenants."""

from __future__ import annotations

from gateway.adapters.field_masks import merged
from gateway.adapters.tenants import FIXED, STATE_NAMES, tenant_message, tenant_record
from gateway.calls import Call
from gateway.services.idempotency import once_of
from gateway.validation.admin import (
    Cluster,
    check_idempotency_key,
    check_list,
    check_tenant,
)
from gateway.validation.fields import Violations
from gateway.validation.pages import DEFAULT_PAGE_SIZE, page_token, read_page_token
from penstock.api.admin.v1 import tenants_pb2 as pb
from penstock.service.tenants import TenantRecord, TenantStore


class TenantsService:
    """Each method is one change or look-up in the store."""

    def __init__(self, tenants: TenantStore, cluster: Cluster) -> None:
        self._tenants = tenants
        self._cluster = cluster

    async def CreateTenant(
        self, request: pb.CreateTenantRequest, call: Call
    ) -> pb.CreateTenantResponse:
        """Adds a tenant."""
        call.resource_id = request.tenant.id
        violations = Violations()
        check_tenant(request.tenant, self._cluster, violations)
        check_idempotency_key(request.idempotency_key, violations)
        violations.refuse()
        record = await self._tenants.create(tenant_record(request.tenant), once_of(request, call))
        return pb.CreateTenantResponse(tenant=tenant_message(record))

    async def GetTenant(self, request: pb.GetTenantRequest, call: Call) -> pb.GetTenantResponse:
        """One tenant, erased ones too."""
        call.resource_id = request.tenant_id
        record = await self._tenants.get(request.tenant_id)
        return pb.GetTenantResponse(tenant=tenant_message(record))

    async def ListTenants(
        self, request: pb.ListTenantsRequest, call: Call
    ) -> pb.ListTenantsResponse:
        """The tenants by id."""
        check_list(request, max(STATE_NAMES))
        records, after = await self._tenants.list(
            after=read_page_token(request.page_token),
            most=request.page_size or DEFAULT_PAGE_SIZE,
            states=[STATE_NAMES[state] for state in request.states],
        )
        tenants = [tenant_message(record) for record in records]
        return pb.ListTenantsResponse(tenants=tenants, next_page_token=page_token(after))

    async def UpdateTenant(
        self, request: pb.UpdateTenantRequest, call: Call
    ) -> pb.UpdateTenantResponse:
        """Changes the fields that the mask names."""
        call.resource_id = request.tenant.id

        def change(stored: TenantRecord) -> TenantRecord:
            message = merged(tenant_message(stored), request.tenant, request.update_mask, FIXED)
            violations = Violations()
            check_tenant(message, self._cluster, violations)
            violations.refuse()
            return tenant_record(message, stored)

        record = await self._tenants.update(request.tenant.id, change, etag=request.tenant.etag)
        return pb.UpdateTenantResponse(tenant=tenant_message(record))

    async def SuspendTenant(
        self, request: pb.SuspendTenantRequest, call: Call
    ) -> pb.SuspendTenantResponse:
        """Refuses its calls until it is resumed."""
        call.resource_id = request.tenant_id
        record = await self._tenants.suspend(request.tenant_id)
        return pb.SuspendTenantResponse(tenant=tenant_message(record))

    async def ResumeTenant(
        self, request: pb.ResumeTenantRequest, call: Call
    ) -> pb.ResumeTenantResponse:
        """Ends a suspension."""
        call.resource_id = request.tenant_id
        record = await self._tenants.resume(request.tenant_id)
        return pb.ResumeTenantResponse(tenant=tenant_message(record))

    async def EraseTenant(
        self, request: pb.EraseTenantRequest, call: Call
    ) -> pb.EraseTenantResponse:
        """Ends it for good; an empty etag fits no tenant."""
        call.resource_id = request.tenant_id
        record = await self._tenants.erase(request.tenant_id, etag=request.etag)
        return pb.EraseTenantResponse(tenant=tenant_message(record))
