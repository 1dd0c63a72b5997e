"""An issuer's public keys (RFC 7517), fetched when needed and seldom.

Any caller can name an unknown key, so an unknown key asks the issuer at most once a cooldown, and
all calls that wait share one fetch. When a fetch fails, the keys of the last good one stay.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.identity.issuers import Issuer
from penstock.errors import DependencyUnavailable

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
"""Keys that are older are fetched again, in the background."""
STALE_SECONDS = 86_400.0
"""Keys that are older are good for nothing: a withdrawn one must end some day."""
COOLDOWN_SECONDS = 30.0
"""From one fetch to the next that an unknown key can cause."""
FETCH_SECONDS = 5.0
LARGEST_BYTES = 256 * 1024
MOST_KEYS = 100
LEAST_RSA_BITS = 2048

_KINDS: Mapping[tuple[str, str], frozenset[str]] = {
    ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""Key type and curve -> the algorithms it can be used with."""


class _Unfetched(Exception):
    """The keys could not be fetched."""


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    algorithms: frozenset[str]
    public: Any


class KeySet:
    """The keys of one issuer."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        verify = ssl.create_default_context(cafile=issuer.ca_file) if issuer.ca_file else True
        self._http = httpx2.AsyncClient(
            verify=verify, proxy=issuer.proxy or None, trust_env=False, follow_redirects=False
        )
        self._keys: tuple[_Key, ...] = ()
        self._fetched = -STALE_SECONDS
        self._tried = -STALE_SECONDS
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> Any:
        """The public key of that id for that algorithm; None when there is no such key.

        Without an id, the only key for the algorithm. Raises DependencyUnavailable when no keys
        are known.
        """
        age = time.monotonic() - self._fetched
        found = self._pick(kid, algorithm) if age < STALE_SECONDS else None
        if found is None and self._may_ask():
            await asyncio.shield(self._fetch())
            found = self._pick(kid, algorithm)
        elif age > FRESH_SECONDS and self._may_ask():
            self._fetch()
        if time.monotonic() - self._fetched >= STALE_SECONDS:
            raise DependencyUnavailable(
                "the token issuer's keys cannot be fetched right now", retry_after_seconds=5.0
            )
        return found

    async def close(self) -> None:
        """Closes its connections."""
        if self._fetching is not None:
            self._fetching.cancel()
        await self._http.aclose()

    def _pick(self, kid: str | None, algorithm: str) -> Any:
        fitting = [
            key
            for key in self._keys
            if algorithm in key.algorithms and (kid is None or key.kid == kid)
        ]
        # Two keys under one name are a mistake; to guess would be another.
        return fitting[0].public if len(fitting) == 1 else None

    def _may_ask(self) -> bool:
        running = self._fetching is not None and not self._fetching.done()
        return running or time.monotonic() - self._tried >= COOLDOWN_SECONDS

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._tried = time.monotonic()
            self._fetching = asyncio.create_task(self._refresh())
        return self._fetching

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                url = self._issuer.jwks_url or await self._discover()
                keys = _read_keys(await self._get(url), self._issuer.algorithms)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError, _Unfetched) as error:
            log.error(
                "an issuer's keys cannot be fetched; keeping the present ones",
                extra={"issuer": self._issuer.issuer, "cause": repr(error)},
            )
            return
        self._keys, self._fetched = keys, time.monotonic()

    async def _discover(self) -> str:
        """OpenID Connect Discovery 1.0, section 4."""
        base = self._issuer.issuer.rstrip("/")
        document = await self._get(f"{base}/.well-known/openid-configuration")
        url = document.get("jwks_uri")
        if document.get("issuer") != self._issuer.issuer:
            raise _Unfetched("the discovery document is another issuer's")
        if not isinstance(url, str) or not self._issuer.allows(url):
            raise _Unfetched("the discovery document names no https jwks_uri")
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        # Uncompressed: some KiB of gzip could hold gigabytes.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        body = b""
        async with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code != 200 or "content-encoding" in response.headers:
                raise _Unfetched(f"{url} answered {response.status_code}")
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > LARGEST_BYTES:
                    raise _Unfetched(f"{url} answered more than {LARGEST_BYTES} bytes")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            raise _Unfetched(f"{url} answered no JSON") from None
        if not isinstance(document, dict):
            raise _Unfetched(f"{url} answered no JSON object")
        return document


def _read_keys(document: Mapping[str, Any], allowed: Iterable[str]) -> tuple[_Key, ...]:
    """The set's signing keys that fit an allowed algorithm. Raises _Unfetched if there are none."""
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise _Unfetched("the key set is malformed")
    read = [_read_key(entry, frozenset(allowed)) for entry in entries if isinstance(entry, dict)]
    keys = tuple(key for key in read if key is not None)
    if not keys:
        raise _Unfetched("the key set has no key that its algorithms can use")
    return keys


def _read_key(entry: Mapping[str, Any], allowed: frozenset[str]) -> _Key | None:
    kind = (entry.get("kty"), entry.get("crv", "") if entry.get("kty") != "RSA" else "")
    if not all(isinstance(part, str) for part in kind):
        return None
    algorithms = _KINDS.get((str(kind[0]), str(kind[1])), frozenset()) & allowed
    if "alg" in entry:
        algorithms &= {entry["alg"]} if isinstance(entry["alg"], str) else set()
    # A private key in a public place is nobody's proof any more.
    if not algorithms or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    kid = entry.get("kid", "")
    try:
        public = jwt.PyJWK(dict(entry), algorithm=min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < LEAST_RSA_BITS:
        return None
    return _Key(kid, algorithms, public) if isinstance(kid, str) else None
