"""KeysService through a whole gateway: what a key may be, and that nobody gives what it lacks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from gateway.calls import Call, Principal
from gateway.services.keys import KeysService
from gateway.validation.admin import Cluster
from penstock.api.admin.v1 import keys_pb2 as pb
from penstock.api.admin.v1.keys_pb2_grpc import KeysServiceStub
from penstock.api.types.v1 import limits_pb2, metadata_pb2
from penstock.errors import IdentityExists, InvalidArgument
from penstock.service.credentials import parse
from penstock.service.tenants import TenantRecord
from tests.gateway.whole import Whole, fields_of, refusal, whole_gateway

if TYPE_CHECKING:
    from penstock.api.admin.v1.keys_pb2_grpc import KeysServiceAsyncStub

SPIFFE = "spiffe://example.org/ns/shop/sa/checkout"
SCOPES = ["inference:invoke", "models:read"]


@pytest.fixture(scope="module")
async def gateway(redis_url: str) -> AsyncIterator[Whole]:
    async with whole_gateway(redis_url) as served:
        await served.tenants.create(TenantRecord(id="acme", highest_tier=1))
        await served.tenants.create(
            TenantRecord(
                id="narrow", allowed_models=("fraud", "team-*"), allowed_regions=("eu-1", "eu-2")
            )
        )
        yield served


@pytest.fixture(scope="module")
def stub(gateway: Whole) -> KeysServiceAsyncStub:
    return KeysServiceStub(gateway.channel)


@pytest.fixture
def admin(gateway: Whole) -> dict[str, Any]:
    return {"metadata": gateway.admin}


def request_for(tenant: str = "acme", once: str = "", **fields: Any) -> pb.CreateKeyRequest:
    key = pb.Key(tenant_id=tenant, scopes=fields.pop("scopes", SCOPES), **fields)
    return pb.CreateKeyRequest(key=key, idempotency_key=once)


async def test_a_key_comes_back_as_it_was_described(stub: KeysServiceAsyncStub, admin: Any) -> None:
    described = pb.Key(
        tenant_id="narrow",
        display_name="checkout",
        scopes=["embeddings:*", "inference:invoke"],
        highest_tier=metadata_pb2.SERVICE_TIER_BATCH,
        limits=limits_pb2.Limits(units_per_minute=10, concurrent_calls=0),
        budgets=[
            limits_pb2.Budget(
                unit=metadata_pb2.USAGE_UNIT_ROW, amount=5, period=limits_pb2.BUDGET_PERIOD_TOTAL
            )
        ],
        allowed_models=["fraud", "team-a", "ft:fraud:narrow:mine"],
        allowed_regions=["eu-2"],
        labels={"app": "shop"},
    )
    described.expire_time.FromSeconds(int(time.time()) + 3_600)
    answer = await stub.CreateKey(pb.CreateKeyRequest(key=described), **admin)
    key, parsed = answer.key, parse(answer.api_key)
    assert parsed is not None
    assert parsed.id == key.id
    assert answer.api_key.startswith(key.credential.api_key.prefix)
    assert key.state == pb.KEY_STATE_ACTIVE
    assert not key.HasField("last_use_time")
    assert (await stub.GetKey(pb.GetKeyRequest(key_id=key.id), **admin)).key == key
    for field in ("id", "state", "credential", "etag", "create_time"):
        key.ClearField(field)
    assert key == described


async def test_a_key_gets_its_tenants_highest_tier(stub: KeysServiceAsyncStub, admin: Any) -> None:
    for tenant, tier in (("acme", 1), ("narrow", 2)):
        answer = await stub.CreateKey(request_for(tenant), **admin)
        assert answer.key.highest_tier == tier


async def test_a_key_may_do_no_more_than_its_tenant(stub: KeysServiceAsyncStub, admin: Any) -> None:
    models = ["fraud", "spam", "team-x", "ft:fraud:acme:theirs"]
    request = request_for(
        "narrow",
        highest_tier=metadata_pb2.SERVICE_TIER_INTERACTIVE,
        allowed_models=models,
        allowed_regions=["eu-1", "us-1"],
    )
    assert fields_of(await refusal(stub.CreateKey(request, **admin))) == [
        "key.highest_tier",
        "key.allowed_models[1]",
        "key.allowed_models[3]",
        "key.allowed_regions[1]",
    ]


async def test_everything_wrong_is_said_at_once(stub: KeysServiceAsyncStub, admin: Any) -> None:
    request = request_for("", "x" * 129, scopes=["inference:destroy", "*"], display_name="x" * 129)
    request.key.expire_time.FromSeconds(1)
    request.key.allowed_models.append("team-*")
    request.key.credential.signing.ed25519_public_key = b"short"
    request.key.budgets.add(unit=1, amount=1, period=1)
    request.key.budgets.add(unit=1, amount=2, period=1)
    assert fields_of(await refusal(stub.CreateKey(request, **admin))) == [
        "key.display_name",
        "key.budgets[1]",
        "key.allowed_models[0]",
        "key.scopes[0]",
        "key.credential.signing.ed25519_public_key",
        "idempotency_key",
        "key.tenant_id",
        "key.expire_time",
    ]
    empty = pb.CreateKeyRequest(key=pb.Key(tenant_id="acme"))
    assert fields_of(await refusal(stub.CreateKey(empty, **admin))) == ["key.scopes"]


async def test_a_key_needs_a_living_tenant(
    gateway: Whole, stub: KeysServiceAsyncStub, admin: Any
) -> None:
    error = await refusal(stub.CreateKey(request_for("nobody"), **admin))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")
    await gateway.tenants.create(TenantRecord(id="late"))
    await gateway.tenants.erase("late", etag="1")
    assert (await refusal(stub.CreateKey(request_for("late"), **admin))).reason == "TENANT_ERASED"


async def test_nobody_gives_a_scope_that_it_lacks(
    gateway: Whole, stub: KeysServiceAsyncStub, admin: Any
) -> None:
    clerk = await gateway.acting("admin:*", "files:*", "models:read")
    for good in (["files:read", "models:read"], ["files:*"], ["admin:write"]):
        await stub.CreateKey(request_for(scopes=good), **clerk)
    for bad in ("inference:invoke", "models:*", "*"):
        error = await refusal(stub.CreateKey(request_for(scopes=["files:read", bad]), **clerk))
        assert (error.reason, error.metadata) == ("SCOPE_MISSING", {"scope": bad})
    mighty = (await stub.CreateKey(request_for(scopes=["*"]), **admin)).key
    rotation = pb.RotateKeyRequest(key_id=mighty.id)
    assert (await refusal(stub.RotateKey(rotation, **clerk))).reason == "SCOPE_MISSING"
    renamed = pb.Key(id=mighty.id, display_name="renamed")
    await stub.UpdateKey(pb.UpdateKeyRequest(key=renamed), **clerk)
    narrowed = pb.Key(id=mighty.id, scopes=["inference:invoke"])
    after = (await stub.UpdateKey(pb.UpdateKeyRequest(key=narrowed), **clerk)).key
    assert (after.display_name, list(after.scopes)) == ("renamed", ["inference:invoke"])
    widened = pb.Key(id=mighty.id, scopes=["inference:invoke", "batch:read"])
    error = await refusal(stub.UpdateKey(pb.UpdateKeyRequest(key=widened), **clerk))
    assert (error.reason, error.metadata) == ("SCOPE_MISSING", {"scope": "batch:read"})


async def test_a_new_key_calls_at_once_and_a_revoked_one_does_not(
    stub: KeysServiceAsyncStub, admin: Any
) -> None:
    answer = await stub.CreateKey(request_for(scopes=["admin:read"]), **admin)
    own = (("authorization", f"Bearer {answer.api_key}"),)
    revoked = (await stub.RevokeKey(pb.RevokeKeyRequest(key_id=answer.key.id), **admin)).key
    assert revoked.state == pb.KEY_STATE_REVOKED
    assert revoked.revoke_time.seconds > 0
    again = await stub.RevokeKey(pb.RevokeKeyRequest(key_id=answer.key.id), **admin)
    assert again.key == revoked
    error = await refusal(stub.ListKeys(pb.ListKeysRequest(), metadata=own))
    assert error.code is grpc.StatusCode.UNAUTHENTICATED
    for call in (
        stub.UpdateKey(pb.UpdateKeyRequest(key=pb.Key(id=revoked.id, display_name="x")), **admin),
        stub.RotateKey(pb.RotateKeyRequest(key_id=revoked.id), **admin),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "KEY_REVOKED",
        )


async def test_a_rotated_key_calls_with_both_texts_in_the_overlap(
    stub: KeysServiceAsyncStub, admin: Any
) -> None:
    first = await stub.CreateKey(request_for(scopes=["admin:read"]), **admin)
    second = await stub.RotateKey(pb.RotateKeyRequest(key_id=first.key.id), **admin)
    request = pb.RotateKeyRequest(key_id=first.key.id)
    for text in (first.api_key, second.api_key):
        own = (("authorization", f"Bearer {text}"),)
        await stub.GetKey(pb.GetKeyRequest(key_id=first.key.id), metadata=own)
    assert second.key.HasField("rotate_time")
    request.overlap.FromSeconds(0)
    third = await stub.RotateKey(request, **admin)
    assert len({first.api_key, second.api_key, third.api_key}) == 3
    request.overlap.FromSeconds(31 * 86_400)
    request.ed25519_public_key = b"x"
    assert fields_of(await refusal(stub.RotateKey(request, **admin))) == [
        "overlap",
        "ed25519_public_key",
    ]


async def test_a_repeated_call_gives_no_second_text(stub: KeysServiceAsyncStub, admin: Any) -> None:
    request = request_for(once="mine")
    first = await stub.CreateKey(request, **admin)
    second = await stub.CreateKey(request, **admin)
    assert (second.key, second.api_key) == (first.key, "")
    request.key.display_name = "other"
    assert (await refusal(stub.CreateKey(request, **admin))).reason == "IDEMPOTENCY_CONFLICT"
    rotation = pb.RotateKeyRequest(key_id=first.key.id, idempotency_key="mine")
    once = await stub.RotateKey(rotation, **admin)
    twice = await stub.RotateKey(rotation, **admin)
    assert once.api_key
    assert (twice.key, twice.api_key) == (once.key, "")
    rotation.overlap.FromSeconds(5)
    assert (await refusal(stub.RotateKey(rotation, **admin))).reason == "IDEMPOTENCY_CONFLICT"


async def test_signing_credentials_are_described_without_their_secrets(
    stub: KeysServiceAsyncStub, admin: Any
) -> None:
    public = pb.Credential(signing=pb.SigningCredential(ed25519_public_key=b"k" * 32))
    signing = await stub.CreateKey(request_for(credential=public), **admin)
    assert (signing.key.credential, signing.api_key) == (public, "")
    missing = pb.RotateKeyRequest(key_id=signing.key.id)
    assert fields_of(await refusal(stub.RotateKey(missing, **admin))) == ["ed25519_public_key"]
    renewed = pb.RotateKeyRequest(key_id=signing.key.id, ed25519_public_key=b"n" * 32)
    rotated = await stub.RotateKey(renewed, **admin)
    assert rotated.key.credential.signing.ed25519_public_key == b"n" * 32
    assert rotated.api_key == ""
    request = request_for(credential=pb.Credential(hmac=pb.HmacCredential()))
    shared = await stub.CreateKey(request, **admin)
    assert shared.key.credential.hmac.prefix == f"pss_{shared.key.id}"
    assert shared.api_key.startswith(f"pss_{shared.key.id}_")


async def test_a_workload_stands_for_one_key(stub: KeysServiceAsyncStub, admin: Any) -> None:
    def mesh(name: str) -> pb.CreateKeyRequest:
        return request_for(credential=pb.Credential(spiffe=pb.SpiffeCredential(spiffe_id=name)))

    first = await stub.CreateKey(mesh(SPIFFE), **admin)
    assert first.key.credential.spiffe.spiffe_id == SPIFFE
    assert first.api_key == ""
    error = await refusal(stub.CreateKey(mesh(SPIFFE), **admin))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDENTITY_EXISTS")
    rotation = pb.RotateKeyRequest(key_id=first.key.id)
    assert fields_of(await refusal(stub.RotateKey(rotation, **admin))) == ["key_id"]
    await stub.RevokeKey(pb.RevokeKeyRequest(key_id=first.key.id), **admin)
    await stub.CreateKey(mesh(SPIFFE), **admin)
    for bad in (
        "",
        "spiffe://example.org",
        "https://example.org/a",
        f"{SPIFFE}/../x",
        "spiffe://A/b",
    ):
        error = await refusal(stub.CreateKey(mesh(bad), **admin))
        assert fields_of(error) == ["key.credential.spiffe.spiffe_id"]


async def test_a_tokens_issuer_must_be_one_of_the_clusters(gateway: Whole) -> None:
    cluster = Cluster(issuers=frozenset({"https://id.example.org"}), currency="EUR")
    service = KeysService(gateway.keys, gateway.tenants, cluster)
    now = time.monotonic()
    call = Call("r", "/x/CreateKey", Principal("operators", "k", frozenset("*")), now, now + 9)

    def token(issuer: str, subject: str = "ada lovelace") -> pb.CreateKeyRequest:
        credential = pb.Credential(jwt=pb.JwtCredential(issuer=issuer, subject=subject))
        return request_for(credential=credential)

    request = token("https://id.example.org")
    request.key.budgets.add(currency="EUR", amount=5_000_000, period=1)
    answer = await service.CreateKey(request, call)
    assert answer.key.credential == request.key.credential
    assert call.resource_id == answer.key.id
    stored = await gateway.keys.find_identity("jwt", "https://id.example.org ada lovelace")
    assert stored is not None
    assert stored.id == answer.key.id
    with pytest.raises(IdentityExists):
        await service.CreateKey(token("https://id.example.org"), call)
    for bad in (token("https://elsewhere.org"), token("https://id.example.org", "x" * 256)):
        with pytest.raises(InvalidArgument):
            await service.CreateKey(bad, call)


async def test_an_update_changes_what_the_mask_names(
    stub: KeysServiceAsyncStub, admin: Any
) -> None:
    request = request_for("narrow", display_name="before", allowed_models=["fraud"])
    request.key.limits.requests_per_minute = 7
    key = (await stub.CreateKey(request, **admin)).key
    given = pb.Key(id=key.id, etag=key.etag, display_name="after")
    given.expire_time.FromSeconds(2_000_000_000)
    mask = FieldMask(paths=["display_name", "limits.requests_per_minute", "expire_time"])
    change = pb.UpdateKeyRequest(key=given, update_mask=mask)
    after = (await stub.UpdateKey(change, **admin)).key
    assert (after.display_name, list(after.allowed_models)) == ("after", ["fraud"])
    assert not after.limits.HasField("requests_per_minute")
    assert after.expire_time.seconds == 2_000_000_000
    assert (await refusal(stub.UpdateKey(change, **admin))).reason == "ETAG_MISMATCH"
    ended = pb.Key(id=key.id)
    mask = FieldMask(paths=["expire_time"])
    after = (await stub.UpdateKey(pb.UpdateKeyRequest(key=ended, update_mask=mask), **admin)).key
    assert not after.HasField("expire_time")
    fixed = ["tenant_id", "credential", "credential.spiffe", "last_use_time", "colour"]
    change = pb.UpdateKeyRequest(key=ended, update_mask=FieldMask(paths=fixed))
    assert fields_of(await refusal(stub.UpdateKey(change, **admin))) == [
        f"update_mask.paths[{index}]" for index in range(len(fixed))
    ]


async def test_a_key_that_its_tenant_outgrew_can_still_be_renamed(
    gateway: Whole, stub: KeysServiceAsyncStub, admin: Any
) -> None:
    await gateway.tenants.create(TenantRecord(id="shrinking", highest_tier=1))
    key = (await stub.CreateKey(request_for("shrinking", allowed_models=["a"]), **admin)).key
    await gateway.tenants.update(
        "shrinking",
        lambda t: t.model_copy(update={"allowed_models": ("b",), "highest_tier": 3}),
    )
    renamed = pb.UpdateKeyRequest(key=pb.Key(id=key.id, display_name="still here"))
    assert (await stub.UpdateKey(renamed, **admin)).key.display_name == "still here"
    widened = pb.UpdateKeyRequest(key=pb.Key(id=key.id, allowed_models=["a", "b"]))
    assert fields_of(await refusal(stub.UpdateKey(widened, **admin))) == ["key.allowed_models[0]"]


async def test_keys_are_listed_newest_first_by_tenant_and_state(
    gateway: Whole, stub: KeysServiceAsyncStub, admin: Any
) -> None:
    await gateway.tenants.create(TenantRecord(id="lister"))
    made = [(await stub.CreateKey(request_for("lister"), **admin)).key.id for _ in range(5)]
    await gateway.keys.revoke(made[1])
    seen, token = [], ""
    while True:
        request = pb.ListKeysRequest(page_size=2, page_token=token, tenant_id="lister")
        page = await stub.ListKeys(request, **admin)
        seen += [key.id for key in page.keys]
        token = page.next_page_token
        if not token:
            break
    assert seen == made[::-1]
    active = pb.ListKeysRequest(tenant_id="lister", states=[pb.KEY_STATE_ACTIVE])
    assert made[1] not in [key.id for key in (await stub.ListKeys(active, **admin)).keys]
    everybody = await stub.ListKeys(pb.ListKeysRequest(page_size=1_000), **admin)
    assert {key.tenant_id for key in everybody.keys} > {"lister", "operators"}
    assert (await stub.ListKeys(pb.ListKeysRequest(tenant_id="no:body"), **admin)).keys == []
    bad = pb.ListKeysRequest(page_size=1_001, page_token="?", states=[0])  # type: ignore[list-item]
    assert fields_of(await refusal(stub.ListKeys(bad, **admin))) == [
        "page_size",
        "page_token",
        "states[0]",
    ]


async def test_a_use_is_shown(gateway: Whole, stub: KeysServiceAsyncStub, admin: Any) -> None:
    key = (await stub.CreateKey(request_for(), **admin)).key
    await gateway.keys.touch(key.id)
    shown = (await stub.GetKey(pb.GetKeyRequest(key_id=key.id), **admin)).key
    assert abs(shown.last_use_time.seconds - time.time()) < 60
    assert shown.etag == key.etag


@pytest.mark.parametrize("name", ["0" * 16, "", "s:by-time", "x" * 9_000])
async def test_a_key_that_does_not_exist_is_not_found(
    stub: KeysServiceAsyncStub, admin: Any, name: str
) -> None:
    for call in (
        stub.GetKey(pb.GetKeyRequest(key_id=name), **admin),
        stub.UpdateKey(pb.UpdateKeyRequest(key=pb.Key(id=name)), **admin),
        stub.RotateKey(pb.RotateKeyRequest(key_id=name), **admin),
        stub.RevokeKey(pb.RevokeKeyRequest(key_id=name), **admin),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")
        assert len(error.message) < 100


async def test_reading_does_not_need_the_right_to_write(
    gateway: Whole, stub: KeysServiceAsyncStub
) -> None:
    reads = await gateway.acting("admin:read")
    found = await stub.GetKey(pb.GetKeyRequest(key_id=gateway.admin_key_id), **reads)
    assert found.key.tenant_id == "operators"
    assert (await refusal(stub.CreateKey(request_for(), **reads))).reason == "SCOPE_MISSING"
