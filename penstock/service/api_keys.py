"""API keys: what they look like, what is stored of them, and where.

Text: ``psk_<id>_<secret>_<checksum>``. Only an HMAC of the secret is kept, so neither a copy of the
database nor the pepper alone yields a key; the checksum catches typing mistakes without a look-up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import zlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from penstock.errors import FieldViolation, InvalidArgument, NotFound
from penstock.service import keys
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

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT = re.compile(r"psk_([0-9a-f]{16})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its holder has it."""

    id: str
    """Public: 64 random bits as hex."""
    secret: str
    """256 random bits in base 62."""

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


class KeyRecord(BaseModel):
    """A key as it is stored. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    tenant: str
    name: str
    credential: Literal["api_key", "ed25519", "hmac", "spiffe", "jwt"] = "api_key"
    proofs: tuple[Proof, ...] = ()
    """Newest first; empty where the credential proves itself (spiffe, jwt)."""
    identity: str = ""
    """What the credential names: a SPIFFE id, or a token's issuer, a space and its subject."""
    scopes: tuple[str, ...]
    highest_tier: int = Field(ge=1, le=4)
    """The most urgent service tier allowed; 1 is the most urgent there is."""
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()
    models: tuple[str, ...] | None = None
    """The models it may call, within the tenant's; None means all of those."""
    regions: tuple[str, ...] | None = None
    """Where its calls may be answered, within the tenant's; None means all of those."""
    labels: dict[str, str] = {}
    revision: int = 1
    """Grows with every change; the etag."""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    rotated_at: float | None = None


def mint() -> tuple[str, str, str]:
    """A new key: its text, its id and its secret."""
    key_id = secrets.token_hex(8)
    secret = _base62(secrets.randbits(256), 43)
    return f"psk_{key_id}_{secret}_{_checksum(key_id, secret)}", key_id, secret


def parse(text: str) -> ApiKey | None:
    """The key in a text, or None when it is not one or was mistyped."""
    match = _TEXT.fullmatch(text)
    if match is None or match[3] != _checksum(match[1], match[2]):
        return None
    return ApiKey(match[1], match[2])


def mac(pepper: bytes, secret: str) -> str:
    """Hex HMAC-SHA256 of the secret: all that is stored of it."""
    return hmac.new(pepper, secret.encode(), hashlib.sha256).hexdigest()


class KeyStore:
    """The keys in the control Redis. Redis failures raise redis.exceptions.RedisError."""

    def __init__(self, control: Redis, pepper: bytes) -> None:
        self._redis = control
        self._pepper = pepper

    async def create(
        self,
        tenant: str,
        name: str,
        scopes: Sequence[str],
        *,
        highest_tier: int = 1,
        requests_per_minute: int | None = None,
        models: Sequence[str] | None = None,
        expires_at: float | None = None,
    ) -> tuple[KeyRecord, str]:
        """Stores a new key; its text is returned once and never again. Raises InvalidArgument."""
        _check(tenant, scopes)
        text, key_id, secret = mint()
        record = KeyRecord(
            id=key_id,
            tenant=tenant,
            name=name,
            proofs=(Proof(value=mac(self._pepper, secret)),),
            scopes=tuple(sorted(set(scopes))),
            highest_tier=highest_tier,
            limits=Limits(requests_per_minute=requests_per_minute),
            models=None if models is None else tuple(sorted(set(models))),
            created_at=time.time(),
            expires_at=expires_at,
        )
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(keys.api_key(key_id), record.model_dump_json())
            pipe.sadd(keys.API_KEYS, key_id)
            await pipe.execute()
        return record, text

    async def find(self, key_id: str) -> KeyRecord | None:
        """The key of that id, revoked or not."""
        text = await self._redis.get(keys.api_key(key_id))
        return None if text is None else KeyRecord.model_validate_json(text)

    def matches(self, record: KeyRecord, key: ApiKey) -> bool:
        """Whether the holder knows the stored key's secret; takes the same time either way."""
        given = mac(self._pepper, key.secret)
        now = time.time()
        good = [
            hmac.compare_digest(proof.value, given)
            for proof in record.proofs
            if proof.expires_at is None or now < proof.expires_at
        ]
        return record.id == key.id and record.credential == "api_key" and any(good)

    async def list(self) -> list[KeyRecord]:
        """Every key, oldest first."""
        ids = await cast(Awaitable[set[bytes]], self._redis.smembers(keys.API_KEYS))
        if not ids:
            return []
        texts = await self._redis.mget([keys.api_key(key_id.decode()) for key_id in ids])
        records = [KeyRecord.model_validate_json(text) for text in texts if text is not None]
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def revoke(self, key_id: str) -> KeyRecord:
        """Marks the key as revoked; again changes nothing. Raises NotFound."""

        async def attempt(pipe: Pipeline) -> KeyRecord:
            text = await cast(Awaitable[bytes | None], pipe.get(keys.api_key(key_id)))
            if text is None:
                raise NotFound(f"no key {key_id!r}")
            record = KeyRecord.model_validate_json(text)
            pipe.multi()  # type: ignore[no-untyped-call]
            if record.revoked_at is None:
                record = record.model_copy(update={"revoked_at": time.time()})
                pipe.set(keys.api_key(key_id), record.model_dump_json())
            return record

        result: Any = await self._redis.transaction(
            cast(Any, attempt), keys.api_key(key_id), value_from_callable=True
        )
        return cast(KeyRecord, result)


def _check(tenant: str, scopes: Sequence[str]) -> None:
    families = {scope.partition(":")[0] + ":*" for scope in SCOPES}
    violations = [
        FieldViolation(f"scopes[{position}]", f"{scope!r} is not a scope")
        for position, scope in enumerate(scopes)
        if scope != "*" and scope not in SCOPES and scope not in families
    ]
    if not _TENANT.fullmatch(tenant):
        violations.append(FieldViolation("tenant", "must be a-z, 0-9 and dashes, 63 at most"))
    if violations:
        raise InvalidArgument(violations=violations)


def _checksum(key_id: str, secret: str) -> str:
    return _base62(zlib.crc32(f"psk_{key_id}_{secret}".encode()), 6)


def _base62(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
