"""OAuth2 access tokens and other JWTs (RFC 7519, RFC 9068, RFC 8725) of the configured issuers.

A token is data until its signature has been checked: its issuer only chooses among the configured
ones, its key id only among that issuer's keys, and its algorithm must be pinned to both.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import jwt

from gateway.identity.issuers import Issuer, Issuers
from gateway.identity.jwks import KeySet
from penstock.errors import Unauthenticated
from penstock.service.api_keys import KeyRecord, KeyStore

LARGEST_TOKEN_BYTES = 8 * 1024
LEEWAY_SECONDS = 30.0
"""How far the issuer's clock may be from ours."""
TRUST_SECONDS = 60.0
"""A token is checked in full again after this at the latest."""
LONGEST_SUBJECT = 255
LONGEST_KEY_ID = 256

_REFUSED_HEADERS = ("crit", "jku", "x5u", "x5c", "jwk", "b64", "zip")
"""Those that would let a token say how it is to be checked."""
_TYPES = ("jwt", "at+jwt", "application/at+jwt", "application/jwt")


class Tokens:
    """Checks tokens, and makes of each the key that it stands for."""

    def __init__(self, issuers: Issuers, store: KeyStore) -> None:
        self._issuers = {one.issuer: (one, KeySet(one)) for one in issuers.issuers}
        self._store = store

    @staticmethod
    def fits(text: str) -> bool:
        """Whether the text has a token's outer form."""
        return text.count(".") == 2

    async def verify(self, text: str) -> tuple[KeyRecord, float]:
        """The key that a good token stands for, and until when, in Unix seconds.

        A key that was created for the token's issuer and subject goes before the issuer's rules.
        Raises Unauthenticated, DependencyUnavailable, RedisError.
        """
        issuer, claims = await self._claims(text)
        subject: str = claims["sub"]
        until = min(float(claims["exp"]) + LEEWAY_SECONDS, time.time() + TRUST_SECONDS)
        identity = f"{issuer.issuer} {subject}"
        record = await self._store.find_identity("jwt", identity)
        return record or _by_rules(issuer, subject, claims), until

    async def close(self) -> None:
        """Closes the connections to the issuers."""
        for _, keys in self._issuers.values():
            await keys.close()

    async def _claims(self, text: str) -> tuple[Issuer, Mapping[str, Any]]:
        if len(text) > LARGEST_TOKEN_BYTES:
            raise Unauthenticated("the token is too large")
        try:
            header = jwt.get_unverified_header(text)
            said = jwt.decode(text, options={"verify_signature": False})
            _check_header(header)
            name = said.get("iss")
            if not isinstance(name, str) or name not in self._issuers:
                raise Unauthenticated("the token's issuer is not trusted here")
            issuer, keys = self._issuers[name]
            algorithm = str(header.get("alg"))
            if algorithm not in issuer.algorithms:
                raise Unauthenticated("the token is signed in another way than its issuer does")
            public = await keys.find(header.get("kid"), algorithm)
            if public is None:
                raise Unauthenticated(
                    "the token is signed with a key that its issuer does not have"
                )
            claims = jwt.decode(
                text,
                public,
                algorithms=[algorithm],
                audience=issuer.audiences,
                issuer=issuer.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("the token is for another audience") from None
        except (jwt.PyJWTError, ValueError, OverflowError, TypeError, RecursionError):
            raise Unauthenticated("the token is not valid") from None
        if not 0 < len(claims["sub"]) <= LONGEST_SUBJECT or not _finite(claims["exp"]):
            raise Unauthenticated("the token is not valid")
        return issuer, claims


def _check_header(header: Mapping[str, Any]) -> None:
    if any(name in header for name in _REFUSED_HEADERS):
        raise Unauthenticated("the token says how it is to be checked")
    kind = header.get("typ", "jwt")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated("the token is of another type than an access token")
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > LONGEST_KEY_ID):
        raise Unauthenticated("the token's key id is malformed")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1e12


def _by_rules(issuer: Issuer, subject: str, claims: Mapping[str, Any]) -> KeyRecord:
    """A key that is nowhere stored, as the issuer's entry describes it."""
    tenant = issuer.tenant.tenant_of(claims)
    if tenant is None:
        raise Unauthenticated("the token names no tenant of this cluster")
    identity = f"{issuer.issuer} {subject}"
    return KeyRecord(
        id=f"jwt-{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
        tenant=tenant,
        name="",
        credential="jwt",
        identity=identity,
        scopes=issuer.scopes.scopes_of(claims),
        highest_tier=issuer.highest_tier,
        created_at=0.0,
    )
