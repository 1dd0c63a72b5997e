"""keys create, list, get, update, rotate, revoke."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstock.api.admin.v1 import keys_pb2 as pb
from tests.cli.conftest import Run
from tests.client.scripted import Scripted

TEXT = "psk_0123456789abcdef_secret_check"
OWN = "psk_fedcba9876543210_x_y"


def shop() -> pb.Key:
    key = pb.Key(
        id="0123456789abcdef",
        tenant_id="acme",
        display_name="shop",
        scopes=["inference:invoke", "models:read"],
        state=pb.KEY_STATE_ACTIVE,
        credential=pb.Credential(api_key=pb.ApiKeyCredential(prefix="psk_0123456789abcdef")),
    )
    key.last_use_time.FromSeconds(0)
    return key


@pytest.fixture(autouse=True)
def answers(scripted: Scripted) -> None:
    def created(request: pb.CreateKeyRequest, _: object) -> pb.CreateKeyResponse:
        secret = request.key.credential.WhichOneof("kind") in (None, "hmac")
        return pb.CreateKeyResponse(key=shop(), api_key=TEXT if secret else "")

    scripted.behaviours |= {
        "CreateKey": created,
        "GetKey": lambda *_: pb.GetKeyResponse(key=shop()),
        "ListKeys": lambda *_: pb.ListKeysResponse(keys=[shop()]),
        "UpdateKey": lambda *_: pb.UpdateKeyResponse(key=shop()),
        "RotateKey": lambda *_: pb.RotateKeyResponse(key=shop(), api_key=TEXT),
        "RevokeKey": lambda *_: pb.RevokeKeyResponse(key=shop()),
    }


def test_a_new_keys_text_is_all_that_is_printed(run: Run, scripted: Scripted) -> None:
    words = (
        "keys create shop --tenant acme --scope files:* --limit concurrent_calls=3"
        " --budget row=9/total --model fraud --region eu-1 --highest-tier batch"
        " --expires 90d --label app=shop"
    )
    assert run(*words.split()).stdout == f"{TEXT}\n"
    key = scripted.requests[0].key
    assert (key.tenant_id, key.display_name, list(key.scopes)) == ("acme", "shop", ["files:*"])
    assert key.limits.concurrent_calls == 3
    assert list(key.allowed_models) == ["fraud"]
    assert abs(key.expire_time.seconds - time.time() - 90 * 86_400) < 60
    made = json.loads(run("keys", "create", "shop", "--tenant", "acme", "--json").stdout)
    assert (made["api_key"], made["key"]["id"]) == (TEXT, "0123456789abcdef")
    assert list(scripted.requests[1].key.scopes) == [
        "inference:invoke",
        "embeddings:invoke",
        "models:read",
    ]


def test_a_key_is_the_callers_own_tenants_by_default(
    run: Run, scripted: Scripted, environment: dict[str, str | None]
) -> None:
    assert run("keys", "create", "shop").exit_code == 2
    environment["PENSTOCK_API_KEY"] = OWN
    assert run("keys", "create", "shop").exit_code == 0
    asked, made = scripted.requests
    assert asked.key_id == "fedcba9876543210"
    assert made.key.tenant_id == "acme"


def test_a_key_can_stand_for_other_credentials(
    run: Run, scripted: Scripted, tmp_path: Path
) -> None:
    public = Ed25519PrivateKey.generate().public_key()
    raw = public.public_bytes_raw()
    pem = tmp_path / "public.pem"
    pem.write_bytes(
        public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    signing = pb.Credential(signing=pb.SigningCredential(ed25519_public_key=raw))
    mesh = pb.Credential(spiffe=pb.SpiffeCredential(spiffe_id="spiffe://a/b"))
    token = pb.Credential(jwt=pb.JwtCredential(issuer="https://i", subject="a b"))
    for options, expected in (
        (["--public-key", raw.hex()], signing),
        (["--public-key", str(pem)], signing),
        (["--shared-secret"], pb.Credential(hmac=pb.HmacCredential())),
        (["--spiffe-id", "spiffe://a/b"], mesh),
        (
            ["--token", "https://i a b"],
            token,
        ),
    ):
        result = run("keys", "create", "shop", "--tenant", "acme", *options)
        assert result.exit_code == 0, result.stderr
        assert scripted.requests[-1].key.credential == expected
    both = run("keys", "create", "x", "--tenant", "acme", "--shared-secret", "--token", "a b")
    assert both.exit_code == 2


def test_a_file_without_an_ed25519_key_is_refused(
    run: Run, scripted: Scripted, tmp_path: Path
) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = tmp_path / "public.pem"
    pem.write_bytes(
        other.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    (tmp_path / "text").write_text("hello")
    for name in ("public.pem", "text", "missing"):
        path = str(tmp_path / name)
        assert run("keys", "create", "x", "--tenant", "a", "--public-key", path).exit_code == 2
    assert scripted.requests == []


def test_keys_are_listed_and_described(run: Run, scripted: Scripted) -> None:
    listed = run("keys", "list", "--tenant", "acme", "--state", "active").stdout
    assert "inference:invoke models:read" in listed
    assert "1970-01-01" in listed
    assert scripted.requests[0] == pb.ListKeysRequest(
        tenant_id="acme", states=[pb.KEY_STATE_ACTIVE]
    )
    assert json.loads(run("keys", "list", "--json").stdout)["keys"][0]["display_name"] == "shop"
    described = run("keys", "get", "0123456789abcdef").stdout
    assert "psk_0123456789abcdef" in described
    assert "limits" not in described


def test_an_update_sends_a_mask_of_what_was_given(run: Run, scripted: Scripted) -> None:
    words = "keys update 0123456789abcdef --scope * --limit rows_per_batch=0 --clear expire_time"
    assert run(*words.split()).exit_code == 0
    (request,) = scripted.requests
    assert list(request.update_mask.paths) == ["scopes", "limits.rows_per_batch", "expire_time"]
    assert request.key.id == "0123456789abcdef"


def test_a_rotation_prints_the_new_text(run: Run, scripted: Scripted) -> None:
    result = run("keys", "rotate", "0123456789abcdef", "--overlap", "90m")
    assert result.stdout == f"{TEXT}\n"
    (request,) = scripted.requests
    assert request.overlap.seconds == 5_400
    assert run("keys", "rotate", "0123456789abcdef", "--overlap", "soon").exit_code == 2


def test_a_key_is_revoked(run: Run, scripted: Scripted) -> None:
    assert run("keys", "revoke", "0123456789abcdef").stdout == "0123456789abcdef is revoked\n"
    assert json.loads(run("keys", "revoke", "0123456789abcdef", "--json").stdout)["id"]
