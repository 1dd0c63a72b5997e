"""TenantsService through a whole gateway: who may keep tenants, and what a tenant may be."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from penstock.api.admin.v1 import tenants_pb2 as pb
from penstock.api.admin.v1.tenants_pb2_grpc import TenantsServiceStub
from penstock.api.models.v1.models_pb2 import ListModelsRequest
from penstock.api.models.v1.models_pb2_grpc import ModelsServiceStub
from penstock.api.types.v1 import limits_pb2, metadata_pb2
from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer
from tests.gateway.whole import Whole, fields_of, refusal, whole_gateway

if TYPE_CHECKING:
    from penstock.api.admin.v1.tenants_pb2_grpc import TenantsServiceAsyncStub

ROW, TOKEN = metadata_pb2.USAGE_UNIT_ROW, metadata_pb2.USAGE_UNIT_TOKEN
DAY, MONTH = limits_pb2.BUDGET_PERIOD_DAY, limits_pb2.BUDGET_PERIOD_MONTH


@pytest.fixture(scope="module")
async def gateway(redis_url: str) -> AsyncIterator[Whole]:
    async with whole_gateway(redis_url) as served:
        yield served


@pytest.fixture(scope="module")
def stub(gateway: Whole) -> TenantsServiceAsyncStub:
    return TenantsServiceStub(gateway.channel)


@pytest.fixture
def admin(gateway: Whole) -> dict[str, Any]:
    return {"metadata": gateway.admin}


def full(name: str) -> pb.Tenant:
    """A tenant with every field that a caller can set."""
    tenant = pb.Tenant(
        id=name,
        display_name="Acme Ltd",
        limits=limits_pb2.Limits(requests_per_minute=100, unfinished_jobs=0),
        budgets=[
            limits_pb2.Budget(unit=TOKEN, amount=1_000_000, period=DAY),
            limits_pb2.Budget(unit=TOKEN, amount=9_000_000, period=MONTH),
        ],
        allowed_models=["fraud", "team-*"],
        allowed_regions=["eu-1"],
        highest_tier=metadata_pb2.SERVICE_TIER_INTERACTIVE,
        weight=7,
        audit_payloads=True,
        labels={"cost-centre": "42"},
        model_limits=[
            limits_pb2.ModelLimits(
                model="fraud",
                limits=limits_pb2.Limits(concurrent_calls=3),
                budgets=[limits_pb2.Budget(unit=ROW, amount=5, period=DAY)],
            )
        ],
    )
    tenant.retention.files.FromSeconds(86_400)
    tenant.retention.audit_payloads.FromMilliseconds(1_500)
    return tenant


async def made(stub: TenantsServiceAsyncStub, admin: Any, tenant: pb.Tenant | str) -> pb.Tenant:
    tenant = pb.Tenant(id=tenant) if isinstance(tenant, str) else tenant
    return (await stub.CreateTenant(pb.CreateTenantRequest(tenant=tenant), **admin)).tenant


async def test_a_tenant_comes_back_as_it_was_described(
    stub: TenantsServiceAsyncStub, admin: Any
) -> None:
    described = full("described")
    answer = await made(stub, admin, described)
    assert answer.state == pb.TENANT_STATE_ACTIVE
    assert answer.etag
    assert answer.create_time == answer.update_time
    assert answer.create_time.seconds > 1_700_000_000
    read = await stub.GetTenant(pb.GetTenantRequest(tenant_id="described"), **admin)
    assert read.tenant == answer
    for field in ("state", "etag", "create_time", "update_time"):
        answer.ClearField(field)
    assert answer == described


async def test_a_tenant_has_modest_defaults(stub: TenantsServiceAsyncStub, admin: Any) -> None:
    tenant = await made(stub, admin, pb.Tenant(id="modest", state=pb.TENANT_STATE_SUSPENDED))
    assert tenant.state == pb.TENANT_STATE_ACTIVE
    assert tenant.highest_tier == metadata_pb2.SERVICE_TIER_STANDARD
    assert tenant.weight == 100
    assert not tenant.limits.ListFields()


async def test_everything_wrong_is_said_at_once(stub: TenantsServiceAsyncStub, admin: Any) -> None:
    tenant = full("Acme!")
    tenant.display_name = "x" * 129
    tenant.weight = 1_001
    tenant.budgets.add(unit=TOKEN, amount=1, period=DAY)
    tenant.budgets.add(amount=1, period=DAY)
    tenant.budgets.add(unit=ROW, currency="EUR", amount=1)
    tenant.budgets.add(currency="EUR", amount=1, period=DAY)
    tenant.allowed_models.append("Bad Name")
    tenant.allowed_regions.append("")
    tenant.model_limits.add(model="fraud").limits.rows_per_batch = 1
    tenant.retention.audit_events.FromSeconds(1)
    tenant.retention.jobs.FromSeconds(0)
    tenant.labels["x" * 65] = ""
    error = await refusal(stub.CreateTenant(pb.CreateTenantRequest(tenant=tenant), **admin))
    assert fields_of(error) == [
        "tenant.id",
        "tenant.display_name",
        "tenant.weight",
        "tenant.labels",
        "tenant.budgets[2]",
        "tenant.budgets[3]",
        "tenant.budgets[4].period",
        "tenant.budgets[4]",
        "tenant.budgets[5].currency",
        "tenant.allowed_models[2]",
        "tenant.allowed_regions[1]",
        "tenant.model_limits[1].model",
        "tenant.model_limits[1].limits.rows_per_batch",
        "tenant.retention.jobs",
        "tenant.retention.audit_payloads",
    ]


async def test_an_id_is_given_once(stub: TenantsServiceAsyncStub, admin: Any) -> None:
    first = pb.CreateTenantRequest(tenant=pb.Tenant(id="once"), idempotency_key="mine")
    answer = await stub.CreateTenant(first, **admin)
    assert await stub.CreateTenant(first, **admin) == answer
    again = pb.CreateTenantRequest(tenant=pb.Tenant(id="once"))
    assert (await refusal(stub.CreateTenant(again, **admin))).reason == "TENANT_EXISTS"
    other = pb.CreateTenantRequest(tenant=pb.Tenant(id="twice"), idempotency_key="mine")
    error = await refusal(stub.CreateTenant(other, **admin))
    assert (error.code, error.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "IDEMPOTENCY_CONFLICT",
    )
    long = pb.CreateTenantRequest(tenant=pb.Tenant(id="long"), idempotency_key="x" * 129)
    assert fields_of(await refusal(stub.CreateTenant(long, **admin))) == ["idempotency_key"]


async def test_an_update_changes_what_the_mask_names(
    stub: TenantsServiceAsyncStub, admin: Any
) -> None:
    before = await made(stub, admin, full("masked"))
    given = pb.Tenant(id="masked", etag=before.etag, weight=9, display_name="ignored")
    given.limits.units_per_minute = 5
    mask = FieldMask(
        paths=["weight", "limits.units_per_minute", "limits.unfinished_jobs", "labels", "budgets"]
    )
    request = pb.UpdateTenantRequest(tenant=given, update_mask=mask)
    after = (await stub.UpdateTenant(request, **admin)).tenant
    assert after.weight == 9
    assert after.limits == limits_pb2.Limits(requests_per_minute=100, units_per_minute=5)
    assert (dict(after.labels), list(after.budgets)) == ({}, [])
    assert after.display_name == "Acme Ltd"
    assert after.retention == before.retention
    assert after.etag != before.etag
    error = await refusal(stub.UpdateTenant(request, **admin))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_an_update_without_a_mask_changes_what_is_set(
    stub: TenantsServiceAsyncStub, admin: Any
) -> None:
    before = await made(stub, admin, full("unmasked"))
    given = pb.Tenant(id="unmasked", etag=before.etag, state=pb.TENANT_STATE_SUSPENDED)
    given.limits.unfinished_jobs = 4
    given.allowed_models.append("one")
    after = (await stub.UpdateTenant(pb.UpdateTenantRequest(tenant=given), **admin)).tenant
    assert after.limits == limits_pb2.Limits(requests_per_minute=100, unfinished_jobs=4)
    assert list(after.allowed_models) == ["one"]
    assert (after.weight, after.state) == (7, pb.TENANT_STATE_ACTIVE)


async def test_a_mask_names_fields_that_exist_and_may_change(
    stub: TenantsServiceAsyncStub, admin: Any
) -> None:
    await made(stub, admin, "strict")
    paths = ["state", "etag", "create_time", "id", "colour", "limits.colour", "budgets.unit", ""]
    mask = FieldMask(paths=[*paths, "weight"])
    request = pb.UpdateTenantRequest(tenant=pb.Tenant(id="strict"), update_mask=mask)
    error = await refusal(stub.UpdateTenant(request, **admin))
    assert fields_of(error) == [f"update_mask.paths[{index}]" for index in range(len(paths))]


async def test_an_update_is_checked_as_a_creation_is(
    stub: TenantsServiceAsyncStub, admin: Any
) -> None:
    before = await made(stub, admin, "checked")
    request = pb.UpdateTenantRequest(tenant=pb.Tenant(id="checked", weight=5_000))
    assert fields_of(await refusal(stub.UpdateTenant(request, **admin))) == ["tenant.weight"]
    read = await stub.GetTenant(pb.GetTenantRequest(tenant_id="checked"), **admin)
    assert read.tenant == before


async def test_tenants_are_listed_by_id_in_pages(gateway: Whole, admin: Any) -> None:
    stub = TenantsServiceStub(gateway.channel)
    for name in ("page-b", "page-a", "page-c"):
        await made(stub, admin, name)
    erased = pb.EraseTenantRequest(tenant_id="page-c", etag="1")
    await stub.EraseTenant(erased, **admin)
    seen, token = [], ""
    while True:
        request = pb.ListTenantsRequest(page_size=2, page_token=token)
        page = await stub.ListTenants(request, **admin)
        seen += [tenant.id for tenant in page.tenants]
        token = page.next_page_token
        if not token:
            break
        assert len(page.tenants) == 2
    assert seen == sorted(seen)
    assert {"operators", "page-a", "page-b"} <= set(seen)
    assert "page-c" not in seen
    only = pb.ListTenantsRequest(states=[pb.TENANT_STATE_ERASED])
    gone = {tenant.id for tenant in (await stub.ListTenants(only, **admin)).tenants}
    assert "page-c" in gone
    assert not gone & set(seen)
    bad = pb.ListTenantsRequest(page_size=1_001, page_token="!", states=[0, 9])  # type: ignore[list-item]
    assert fields_of(await refusal(stub.ListTenants(bad, **admin))) == [
        "page_size",
        "page_token",
        "states[0]",
        "states[1]",
    ]


async def test_a_suspension_can_be_ended_and_an_erasure_cannot(
    stub: TenantsServiceAsyncStub, admin: Any
) -> None:
    await made(stub, admin, full("doomed"))
    suspend = pb.SuspendTenantRequest(tenant_id="doomed")
    resume = pb.ResumeTenantRequest(tenant_id="doomed")
    assert (await stub.SuspendTenant(suspend, **admin)).tenant.state == pb.TENANT_STATE_SUSPENDED
    tenant = (await stub.ResumeTenant(resume, **admin)).tenant
    assert tenant.state == pb.TENANT_STATE_ACTIVE
    for etag in ("", "other"):
        unseen = pb.EraseTenantRequest(tenant_id="doomed", etag=etag)
        assert (await refusal(stub.EraseTenant(unseen, **admin))).reason == "ETAG_MISMATCH"
    erase = pb.EraseTenantRequest(tenant_id="doomed", etag=tenant.etag)
    left = (await stub.EraseTenant(erase, **admin)).tenant
    assert {field.name for field, _ in left.ListFields()} == {
        "id",
        "state",
        "etag",
        "create_time",
        "update_time",
    }
    assert left.state == pb.TENANT_STATE_ERASED
    assert (await stub.EraseTenant(erase, **admin)).tenant == left
    update = pb.UpdateTenantRequest(tenant=pb.Tenant(id="doomed", weight=2))
    for call in (
        stub.SuspendTenant(suspend, **admin),
        stub.ResumeTenant(resume, **admin),
        stub.UpdateTenant(update, **admin),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "TENANT_ERASED",
        )


@pytest.mark.parametrize("name", ["nobody", "", "operators:pseudonym", "x" * 9_000])
async def test_a_tenant_that_does_not_exist_is_not_found(
    stub: TenantsServiceAsyncStub, admin: Any, name: str
) -> None:
    for call in (
        stub.GetTenant(pb.GetTenantRequest(tenant_id=name), **admin),
        stub.UpdateTenant(pb.UpdateTenantRequest(tenant=pb.Tenant(id=name)), **admin),
        stub.SuspendTenant(pb.SuspendTenantRequest(tenant_id=name), **admin),
        stub.ResumeTenant(pb.ResumeTenantRequest(tenant_id=name), **admin),
        stub.EraseTenant(pb.EraseTenantRequest(tenant_id=name, etag="1"), **admin),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")


async def test_only_administrators_keep_tenants(gateway: Whole, admin: Any) -> None:
    stub = TenantsServiceStub(gateway.channel)
    reads = await gateway.acting("admin:read")
    outsider = await gateway.acting("models:*", "usage:read")
    await stub.GetTenant(pb.GetTenantRequest(tenant_id="operators"), **reads)
    request = pb.CreateTenantRequest(tenant=pb.Tenant(id="sly"))
    assert (await refusal(stub.CreateTenant(request, **reads))).reason == "SCOPE_MISSING"
    listing = pb.ListTenantsRequest()
    assert (await refusal(stub.ListTenants(listing, **outsider))).reason == "SCOPE_MISSING"
    assert await gateway.tenants.find("sly") is None


async def test_an_erased_tenants_key_is_refused(gateway: Whole, admin: Any) -> None:
    stub = TenantsServiceStub(gateway.channel)
    models = ModelsServiceStub(gateway.channel)
    tenant = await made(stub, admin, "short-lived")
    metadata = await gateway.with_key("models:read", tenant="short-lived")
    erase = pb.EraseTenantRequest(tenant_id="short-lived", etag=tenant.etag)
    await stub.EraseTenant(erase, **admin)
    error = await refusal(models.ListModels(ListModelsRequest(), metadata=metadata))
    assert error.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[tuple[RedisServer, subprocess.Popen[bytes]]]:
    """A Redis that the test may kill."""
    server = RedisServer(tmp_path, free_port())
    child = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    try:
        assert server.wait()
        yield server, child
    finally:
        child.kill()
        child.wait()


async def test_a_store_that_is_away_is_said(
    own_redis: tuple[RedisServer, subprocess.Popen[bytes]],
) -> None:
    server, child = own_redis
    async with whole_gateway(server.url()) as gateway:
        stub = TenantsServiceStub(gateway.channel)
        request = pb.GetTenantRequest(tenant_id="operators")
        await stub.GetTenant(request, metadata=gateway.admin)
        child.kill()
        child.wait()
        error = await refusal(stub.GetTenant(request, metadata=gateway.admin))
    assert (error.code, error.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "DEPENDENCY_UNAVAILABLE",
    )
    assert error.retry_after_seconds
