"""Tokens: every forgery is refused before anything is decoded, and good ones mean what they say."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from redis.asyncio import Redis

from gateway.identity import jwks
from gateway.identity.issuers import Issuers
from tests.gateway.identity.front import Front, Records, fronted
from tests.gateway.identity.issuing import IssuerServer, public_jwk, rsa_key, segment

Forge = Callable[[IssuerServer], str]


def unsigned(algorithm: str) -> Forge:
    return lambda issuer: f"{segment({'alg': algorithm, 'kid': 'k1'})}.{segment(issuer.claims())}."


def hmac_signed(issuer: IssuerServer, secret: bytes) -> str:
    text = f"{segment({'alg': 'HS256', 'kid': 'k1'})}.{segment(issuer.claims())}"
    return f"{text}.{segment(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def with_public_key_as_secret(issuer: IssuerServer) -> str:
    public = issuer.keys["k1"].public_key()
    return hmac_signed(issuer, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def with_listed_key_as_secret(issuer: IssuerServer) -> str:
    return hmac_signed(issuer, json.dumps(public_jwk(issuer.keys["k1"], "k1")).encode())


def header(**fields: Any) -> Forge:
    return lambda issuer: issuer.token(fields)


def raw_header(**fields: Any) -> Forge:
    """Signed by the issuer's own key, header and all, past what the library lets one write."""

    def forge(issuer: IssuerServer) -> str:
        text = f"{segment({'alg': 'RS256', 'kid': 'k1'} | fields)}.{segment(issuer.claims())}"
        signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
            text.encode(), issuer.keys["k1"]
        )
        return f"{text}.{segment(signature)}"

    return forge


def claim(**changed: Any) -> Forge:
    return lambda issuer: issuer.token(**changed)


def raw_claims(text: str) -> Forge:
    def forge(issuer: IssuerServer) -> str:
        return jwt.api_jws.encode(text.encode(), issuer.keys["k1"], "RS256", {"kid": "k1"})

    return forge


def altered(part: int) -> Forge:
    def forge(issuer: IssuerServer) -> str:
        parts = issuer.token().split(".")
        parts[part] = (
            segment({"alg": "RS256", "kid": "k1", "typ": "JWT", "x": 1}),
            segment(issuer.claims(scope="inference:invoke models:read")),
            segment(secrets.token_bytes(256)),
        )[part]
        return ".".join(parts)

    return forge


def by_another_key(**headers: Any) -> Forge:
    return lambda issuer: jwt.encode(
        issuer.claims(), rsa_key("forger"), "RS256", {"kid": "k1"} | headers
    )


def with_own_key_inside(issuer: IssuerServer) -> str:
    return by_another_key(jwk=public_jwk(rsa_key("forger"), "k1"))(issuer)


def by_an_unpinned_algorithm(issuer: IssuerServer) -> str:
    return jwt.encode(issuer.claims(), issuer.keys["k1"], "PS256", {"kid": "k1"})


def later(seconds: float) -> int:
    return int(time.time() + seconds)


FORGERIES: dict[str, Forge] = {
    "alg none": unsigned("none"),
    "alg nOnE": unsigned("nOnE"),
    "alg empty": unsigned(""),
    "HS256 with the public key as secret": with_public_key_as_secret,
    "HS256 with the listed key as secret": with_listed_key_as_secret,
    "an algorithm that is not pinned": by_an_unpinned_algorithm,
    "kid with a path": header(kid="../../../../etc/passwd"),
    "kid with SQL": header(kid="k1' UNION SELECT 'key' --"),
    "kid with a URL": header(kid="http://127.0.0.1/key"),
    "kid with a NUL": header(kid="k1\0"),
    "kid with a newline": header(kid="k1\n"),
    "kid that is a list": raw_header(kid=["k1"]),
    "kid that is very long": header(kid="k" * 5000),
    "an unknown critical header": raw_header(crit=["exp2"], exp2=1),
    "a critical header that is known": raw_header(crit=["exp"], exp=1),
    "jku": header(jku="http://127.0.0.1/jwks"),
    "x5u": header(x5u="http://127.0.0.1/cert"),
    "x5c": header(x5c=["MIIB"]),
    "a key of its own inside": with_own_key_inside,
    "an unencoded payload": raw_header(b64=False, crit=["b64"]),
    "a compressed payload": raw_header(zip="DEF"),
    "typ of another token": header(typ="logout+jwt"),
    "typ that is a number": raw_header(typ=7),
    "another key under the same name": by_another_key(),
    "an issuer that is not trusted": claim(iss="https://elsewhere.example"),
    "an issuer with a slash more": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "no issuer": claim(iss=None),
    "an issuer that is a list": lambda issuer: raw_claims(
        json.dumps(issuer.claims() | {"iss": [issuer.url]})
    )(issuer),
    "another audience": claim(aud="somebody-else"),
    "other audiences": claim(aud=["a", "b"]),
    "no audience": claim(aud=None),
    "expired": claim(exp=later(-31)),
    "no expiry": claim(exp=None),
    "an expiry that is no number": claim(exp="tomorrow"),
    "an infinite expiry": lambda issuer: raw_claims(
        json.dumps(issuer.claims() | {"exp": float("inf")})
    )(issuer),
    "not good yet": claim(nbf=later(600)),
    "issued in the future": claim(iat=later(600)),
    "no subject": claim(sub=None),
    "an empty subject": claim(sub=""),
    "a subject that is a number": lambda issuer: raw_claims(
        json.dumps(issuer.claims() | {"sub": 7})
    )(issuer),
    "header altered": altered(0),
    "claims altered": altered(1),
    "signature altered": altered(2),
    "signature cut off": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "too large": claim(padding="x" * 7000),
    "claims that are no object": raw_claims("[]"),
    "claims nested too deep": raw_claims("[" * 3000),
    "no JSON at all": lambda _: "a.b.c",
    "only dots": lambda _: "..",
    "five parts": lambda issuer: issuer.token() + ".a.b",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forged_token_reaches_no_handler(
    front: Front, issuer: IssuerServer, forge: Forge
) -> None:
    assert await front.call(f"Bearer {forge(issuer)}", body=b"\xff\xff") == "CREDENTIALS_INVALID"
    assert front.probe.calls == []
    # The forger's model, unforged: the test refuses what it means to.
    assert await front.call(f"Bearer {issuer.token()}") == "OK"


async def test_a_good_token_makes_the_principal_that_the_file_describes(
    front: Front, issuer: IssuerServer
) -> None:
    token = issuer.token(scope="inference:invoke admin:write * nonsense", typ="JWT")
    assert await front.call(f"bearer {token}") == "OK"
    principal = front.probe.calls[0].principal
    assert principal.tenant == "acme"
    assert "inference:invoke" in principal.scopes
    assert not {"admin:write", "audit:read", "models:admin", "*"} & principal.scopes
    assert principal.highest_tier == 2
    assert principal.key_id.startswith("jwt-")
    assert await front.call(f"Bearer {issuer.token(scope='models:read')}") == "SCOPE_MISSING"


async def test_a_clock_that_is_half_a_minute_off_is_forgiven(
    front: Front, issuer: IssuerServer
) -> None:
    assert await front.call(f"Bearer {issuer.token(exp=later(-20))}") == "OK"
    assert await front.call(f"Bearer {issuer.token(nbf=later(20))}") == "OK"


async def test_a_claim_names_the_tenant_only_as_the_file_allows(
    redis: Redis, records: Records, issuer: IssuerServer
) -> None:
    entry = issuer.described(
        tenant={"claim": "org", "values": {"o-1": "acme", "o-2": "gone"}},
        scopes={"claim": "roles", "prefix": "penstock/", "mapping": {"caller": ["inference:*"]}},
    )
    async with fronted(redis, issuers=Issuers(issuers=(entry,))) as front:
        good = issuer.token(org="o-1", roles=["penstock/caller", "other/caller"])
        assert await front.call(f"Bearer {good}") == "OK"
        assert front.probe.calls[0].principal.scopes == {"inference:invoke"}
        for org in ("acme", "o-2", "", None, ["o-1"]):
            token = issuer.token(org=org, roles=["penstock/caller"])
            assert await front.call(f"Bearer {token}") == "CREDENTIALS_INVALID"


async def test_a_key_made_for_the_subject_goes_before_the_issuers_rules(
    front: Front, issuer: IssuerServer, records: Records
) -> None:
    key, _ = await records.key(
        "other", credential="jwt", identity=f"{issuer.url} svc", scopes=("inference:invoke",)
    )
    assert await front.call(f"Bearer {issuer.token(scope='')}") == "OK"
    assert front.probe.calls[0].principal.tenant == "other"
    assert front.probe.calls[0].principal.key_id == key.id


async def test_five_hundred_unknown_key_ids_cause_one_fetch_at_most(
    front: Front, issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await front.call(f"Bearer {issuer.token()}") == "OK"
    assert issuer.fetches == 1
    unknown = [issuer.token({"kid": secrets.token_hex(8)}) for _ in range(500)]
    refused = await asyncio.gather(*(front.call(f"Bearer {token}") for token in unknown))
    assert set(refused) == {"CREDENTIALS_INVALID"}
    assert issuer.fetches == 1
    # After the cooldown there is one fetch, for all of them together.
    (_, keys), *_ = front.identifier._tokens._issuers.values()
    keys._tried -= jwks.COOLDOWN_SECONDS
    await asyncio.gather(*(front.call(f"Bearer {token}") for token in unknown))
    assert issuer.fetches == 2


async def test_a_new_key_of_the_issuer_is_found_after_the_cooldown(
    front: Front, issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "COOLDOWN_SECONDS", 0.0)
    assert await front.call(f"Bearer {issuer.token()}") == "OK"
    issuer.keys = {"k2": rsa_key("k2")}
    token = jwt.encode(issuer.claims(), rsa_key("k2"), "RS256", {"kid": "k2"})
    assert await front.call(f"Bearer {token}") == "OK"
    assert await front.call(f"Bearer {issuer_token_of('k1', issuer)}") == "CREDENTIALS_INVALID"


def issuer_token_of(kid: str, issuer: IssuerServer) -> str:
    return jwt.encode(issuer.claims(sub="late"), rsa_key(kid), "RS256", {"kid": kid})


async def test_the_last_good_keys_stay_when_a_fetch_fails(
    front: Front, issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "COOLDOWN_SECONDS", 0.0)
    assert await front.call(f"Bearer {issuer.token()}") == "OK"
    issuer.broken = True
    assert await front.call(f"Bearer {issuer.token({'kid': 'new'})}") == "CREDENTIALS_INVALID"
    assert await front.call(f"Bearer {issuer.token(sub='another')}") == "OK"


async def test_an_issuer_that_never_answered_is_unavailable(
    front: Front, issuer: IssuerServer
) -> None:
    issuer.broken = True
    assert await front.call(f"Bearer {issuer.token()}") == "DEPENDENCY_UNAVAILABLE"
    assert front.probe.calls == []


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://elsewhere.example"},
        {"jwks_uri": "http://192.0.2.1/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"padding": "x" * jwks.LARGEST_BYTES},
    ],
    ids=["another issuer's", "plaintext", "a file", "none", "too large"],
)
async def test_a_discovery_document_that_misleads_is_not_followed(
    front: Front, issuer: IssuerServer, discovery: dict[str, Any]
) -> None:
    issuer.discovery = discovery
    assert await front.call(f"Bearer {issuer.token()}") == "DEPENDENCY_UNAVAILABLE"
    assert issuer.fetches == 0


async def test_a_token_is_refused_when_its_time_is_up_though_it_was_trusted(
    front: Front, issuer: IssuerServer
) -> None:
    token = issuer.token(exp=later(-28))
    assert await front.call(f"Bearer {token}") == "OK"
    async with asyncio.timeout(5):
        while await front.call(f"Bearer {token}") == "OK":
            await asyncio.sleep(0.05)
    assert await front.call(f"Bearer {token}") == "CREDENTIALS_INVALID"
