"""Credentials: what they look like, and what is stored of them.

An API key is ``psk_<id>_<secret>_<checksum>``. Only an HMAC of the secret is kept, so neither a
copy of the database nor the pepper alone yields a key. A shared signing secret is
``pss_<id>_<secret>_<checksum>``; it is derived from the pepper and a salt, and only the salt is
kept. The checksum catches typing mistakes without a look-up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import zlib
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock.service.quotas import NO_LIMITS, Budget, Limits

SCOPES = frozenset(
    {
        "inference:invoke",
        "embeddings:invoke",
        "multimodal:invoke",
        "files:read",
        "files:write",
        "batch:read",
        "batch:write",
        "finetuning:read",
        "finetuning:write",
        "models:read",
        "models:admin",
        "usage:read",
        "admin:read",
        "admin:write",
        "audit:read",
    }
)
"""Everything a key can be allowed to do; ``family:*`` and ``*`` stand for several."""
WILDCARDS = frozenset({"*", *(scope.partition(":")[0] + ":*" for scope in SCOPES)})
"""What stands for several scopes, those of later releases included."""

CredentialKind = Literal["api_key", "ed25519", "hmac", "spiffe", "jwt"]
KeyState = Literal["active", "expired", "revoked"]

API_KEY_PREFIX = "psk"
SIGNING_SECRET_PREFIX = "pss"  # noqa: S105

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT = re.compile(r"(ps[ks])_([0-9a-f]{16})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its holder has it."""

    id: str
    """Public: 64 random bits as hex."""
    secret: str
    """256 bits in base 62."""

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r}, secret=...)"


class Proof(BaseModel):
    """What a credential is checked against."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    value: str
    """Hex. api_key: the HMAC-SHA256 of the secret under the pepper. ed25519: the public key. hmac:
    the salt from which, with the pepper, the secret is derived."""
    expires_at: float | None = None
    """Set when a newer one has taken its place."""

    def good(self, now: float) -> bool:
        """Whether it may still be used at that time."""
        return self.expires_at is None or now < self.expires_at


class KeyDraft(BaseModel):
    """A key as its maker describes it. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tenant: str
    name: str
    credential: CredentialKind = "api_key"
    identity: str = ""
    """What the credential names: a SPIFFE id, or a token's issuer, a space and its subject."""
    scopes: tuple[str, ...]
    highest_tier: int = Field(default=1, ge=1, le=4)
    """The most urgent service tier allowed; 1 is the most urgent there is."""
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()
    models: tuple[str, ...] | None = None
    """The models it may call, within the tenant's; None means all of those."""
    regions: tuple[str, ...] | None = None
    """Where its calls may be answered, within the tenant's; None means all of those."""
    labels: dict[str, str] = {}
    expires_at: float | None = None


class KeyRecord(KeyDraft):
    """A key as it is stored."""

    id: str
    proofs: tuple[Proof, ...] = ()
    """Newest first; empty where the credential proves itself (spiffe, jwt)."""
    revision: int = 1
    """Grows with every change."""
    created_at: float
    revoked_at: float | None = None
    rotated_at: float | None = None

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return f"{self.revision:x}"

    def state(self, now: float | None = None) -> KeyState:
        """Whether the key is good, now or at that time."""
        if self.revoked_at is not None:
            return "revoked"
        now = time.time() if now is None else now
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def new_key_id() -> str:
    """64 random bits as hex."""
    return secrets.token_hex(8)


def new_secret() -> str:
    """256 random bits in base 62."""
    return _base62(secrets.randbits(256), 43)


def new_salt() -> str:
    """128 random bits as hex."""
    return secrets.token_hex(16)


def mint() -> tuple[str, str, str]:
    """A new API key: its text, its id and its secret."""
    key_id, secret = new_key_id(), new_secret()
    return key_text(API_KEY_PREFIX, key_id, secret), key_id, secret


def key_text(prefix: str, key_id: str, secret: str) -> str:
    """What its holder keeps: the secret with its id and a checksum."""
    return f"{prefix}_{key_id}_{secret}_{_checksum(prefix, key_id, secret)}"


def parse(text: str, prefix: str = API_KEY_PREFIX) -> ApiKey | None:
    """The key in a text, or None when it is not one of that kind or was mistyped."""
    match = _TEXT.fullmatch(text)
    if match is None or match[1] != prefix or match[4] != _checksum(prefix, match[2], match[3]):
        return None
    return ApiKey(match[2], match[3])


def mac(pepper: bytes, secret: str) -> str:
    """Hex HMAC-SHA256 of the secret: all that is stored of it."""
    return hmac.new(pepper, secret.encode(), hashlib.sha256).hexdigest()


def signing_secret(pepper: bytes, key_id: str, salt: str) -> str:
    """A shared signing secret: HMAC-SHA256 of key id and salt under the pepper, in base 62.

    It cannot meet an API key's HMAC: what goes in has 48 characters, an API key's secret 43.
    """
    digest = hmac.new(pepper, f"{key_id}{salt}".encode(), hashlib.sha256).digest()
    return _base62(int.from_bytes(digest), 43)


def _checksum(prefix: str, key_id: str, secret: str) -> str:
    return _base62(zlib.crc32(f"{prefix}_{key_id}_{secret}".encode()), 6)


def _base62(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
