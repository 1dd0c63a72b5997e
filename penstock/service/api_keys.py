"""Where keys are kept: made, found, changed, rotated and revoked in the control Redis."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from penstock.errors import (
    EtagMismatch,
    FieldViolation,
    IdentityExists,
    InvalidArgument,
    KeyNotFound,
    KeyRevoked,
    TenantErased,
)
from penstock.service import credentials, keys
from penstock.service.credentials import (
    API_KEY_PREFIX,
    SCOPES,
    SIGNING_SECRET_PREFIX,
    WILDCARDS,
    ApiKey,
    CredentialKind,
    KeyDraft,
    KeyRecord,
    KeyState,
    Proof,
    mac,
    mint,
    parse,
)
from penstock.service.idempotency import Once
from penstock.service.quotas import Limits
from penstock.service.redis import begin_writes, read, transact
from penstock.service.tenants import read_tenant

__all__ = [
    "SCOPES",
    "ApiKey",
    "KeyDraft",
    "KeyRecord",
    "KeyStore",
    "Proof",
    "mac",
    "mint",
    "parse",
]

LONGEST_OVERLAP_SECONDS = 30 * 86_400.0
"""How long a rotated key's old secret may stay good."""
MOST_PROOFS = 8
"""Secrets of one key that are good at once; with one more, the oldest ends early."""
TOUCH_SECONDS = 50.0
"""A key's last use is written at most this often, so that it is known to within a minute."""
_MOST_TOUCHED = 100_000


class KeyStore:
    """The keys in the control Redis. Redis failures raise redis.exceptions.RedisError.

    Every change is one WATCH/MULTI transaction: changes are rare, and their rules are Python.
    """

    def __init__(self, control: Redis, pepper: bytes) -> None:
        self._redis = control
        self._pepper = pepper
        self._touched: dict[str, float] = {}

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
        """A new API key and its text; short for ``add``, whose errors it raises."""
        return await self.add(
            KeyDraft(
                tenant=tenant,
                name=name,
                scopes=tuple(scopes),
                highest_tier=highest_tier,
                limits=Limits(requests_per_minute=requests_per_minute),
                models=None if models is None else tuple(sorted(set(models))),
                expires_at=expires_at,
            )
        )

    async def add(
        self, draft: KeyDraft, *, public_key: str = "", once: Once | None = None
    ) -> tuple[KeyRecord, str]:
        """Stores a new key. The text of an API key or a shared signing secret is returned once and
        never again: it is empty for other credentials, and where a repeated call finds the first's.

        ``public_key`` is an ed25519 credential's, in hex. Raises InvalidArgument, TenantNotFound,
        TenantErased, IdentityExists, IdempotencyConflict.
        """
        check_scopes(draft.scopes)
        key_id, now = credentials.new_key_id(), time.time()
        proof, secret = self._proof(draft.credential, key_id, public_key)
        record = KeyRecord(
            **draft.model_copy(update={"scopes": tuple(sorted(set(draft.scopes)))}).model_dump(),
            id=key_id,
            proofs=() if proof is None else (proof,),
            created_at=now,
        )

        async def attempt(pipe: Pipeline) -> tuple[KeyRecord, str]:
            made = None if once is None else await once.made(pipe)
            if made is not None:
                first = _known(await read(pipe, keys.api_key(made)), made)
                begin_writes(pipe)
                return first, ""
            if (await read_tenant(pipe, record.tenant)).state == "erased":
                raise TenantErased(f"tenant {record.tenant!r} was erased")
            await _check_identity(pipe, record)
            begin_writes(pipe)
            _write_new(pipe, record)
            if once is not None:
                once.remember(pipe, key_id)
            return record, secret

        watched = [keys.tenant(record.tenant)]
        if record.identity:
            watched.append(keys.identity(record.credential, record.identity))
        if once is not None:
            watched.append(once.key)
        return await transact(self._redis, attempt, *watched)

    async def find(self, key_id: str) -> KeyRecord | None:
        """The key of that id, revoked or not."""
        text = await read(self._redis, keys.api_key(key_id))
        return None if text is None else KeyRecord.model_validate_json(text)

    async def get(self, key_id: str) -> KeyRecord:
        """The key of that id, revoked or not. Raises KeyNotFound."""
        return _known(await read(self._redis, keys.api_key(key_id)), key_id)

    async def find_identity(self, kind: CredentialKind, value: str) -> KeyRecord | None:
        """The key that stands for a SPIFFE id, or for a token's issuer, a space and its subject;
        a revoked one too, until another takes its place."""
        key_id = await read(self._redis, keys.identity(kind, value))
        return None if key_id is None else await self.find(key_id.decode())

    async def list(
        self,
        *,
        after: str = "",
        most: int = 100,
        tenant: str = "",
        states: Collection[KeyState] = (),
    ) -> tuple[list[KeyRecord], str]:
        """One page, newest first, and where the next begins, empty when this was the last.

        ``after`` is what an earlier page gave; no ``states`` means all.
        """
        index = keys.tenant_keys(tenant) if tenant else keys.API_KEYS
        page: list[KeyRecord] = []
        while True:
            begin = f"({after}" if after else "+"
            found: Any = await self._redis.zrange(
                index, cast(Any, begin), cast(Any, "-"), desc=True, bylex=True, offset=0,
                num=most + 1,
            )  # fmt: skip
            ids = [member.decode().rpartition(":")[2] for member in found]
            for text in await self._redis.mget([keys.api_key(key_id) for key_id in ids] or [""]):
                record = None if text is None else KeyRecord.model_validate_json(text)
                if record is not None and (not states or record.state() in states):
                    if len(page) == most:
                        return page, _member(page[-1])
                    page.append(record)
            if len(found) <= most:
                return page, ""
            after = found[-1].decode()

    async def update(
        self, key_id: str, change: Callable[[KeyRecord], KeyRecord], *, etag: str = ""
    ) -> KeyRecord:
        """The key after ``change``, which may run more than once and may raise.

        Raises KeyNotFound, KeyRevoked, EtagMismatch (unless ``etag`` is empty), InvalidArgument.
        """

        def checked(record: KeyRecord) -> KeyRecord:
            _check_live(record)
            if etag and etag != record.etag:
                raise EtagMismatch(f"key {key_id!r} has changed since its etag was read")
            after = change(record)
            check_scopes(after.scopes)
            return after

        return (await self._change(key_id, checked))[0]

    async def rotate(
        self,
        key_id: str,
        *,
        overlap_seconds: float = 86_400.0,
        public_key: str = "",
        once: Once | None = None,
    ) -> tuple[KeyRecord, str]:
        """Gives the key a new secret, whose text is returned once; the old one ends after the
        overlap. ``public_key`` is an ed25519 credential's new one, in hex.

        Raises KeyNotFound, KeyRevoked, InvalidArgument, IdempotencyConflict.
        """
        kind = (await self.get(key_id)).credential
        proof, secret = self._proof(kind, key_id, public_key)

        def rotated(record: KeyRecord) -> KeyRecord:
            _check_live(record)
            if proof is None:
                text = f"has no secret to renew: its credential is {record.credential}"
                raise InvalidArgument(violations=[FieldViolation("key_id", text)])
            now = time.time()
            old = (_ending(known, now + overlap_seconds) for known in record.proofs)
            proofs = (proof, *(known for known in old if known.good(now)))[:MOST_PROOFS]
            return record.model_copy(update={"proofs": proofs, "rotated_at": now})

        record, first = await self._change(key_id, rotated, once)
        return record, secret if first else ""

    async def revoke(self, key_id: str) -> KeyRecord:
        """Ends the key for good; repeating it changes nothing. Raises KeyNotFound.

        Its identity still leads to it until another key takes its place, so that the subject or
        workload is refused instead of falling back to what its issuer or trust domain grants.
        """

        def revoked(record: KeyRecord) -> KeyRecord:
            if record.revoked_at is not None:
                return record
            return record.model_copy(update={"revoked_at": time.time()})

        return (await self._change(key_id, revoked))[0]

    def matches(self, record: KeyRecord, key: ApiKey) -> bool:
        """Whether the holder knows the stored key's secret; takes the same time either way."""
        given, now = mac(self._pepper, key.secret), time.time()
        known = [p.value for p in record.proofs if p.good(now)]
        good = [hmac.compare_digest(value, given) for value in known]
        return record.id == key.id and record.credential == "api_key" and any(good)

    def signing_secrets(self, record: KeyRecord) -> tuple[str, ...]:
        """The good secrets of an hmac credential, newest first, as in their texts; none for others.

        Its 43 characters, in ASCII, key the HMAC of a request.
        """
        if record.credential != "hmac":
            return ()
        now = time.time()
        return tuple(
            credentials.signing_secret(self._pepper, record.id, proof.value)
            for proof in record.proofs
            if proof.good(now)
        )

    async def touch(self, key_id: str) -> None:
        """Notes that the key is in use; cheap to call often, for it seldom writes."""
        now = time.monotonic()
        if now - self._touched.get(key_id, -TOUCH_SECONDS) < TOUCH_SECONDS:
            return
        if len(self._touched) >= _MOST_TOUCHED:
            self._touched.clear()
        self._touched[key_id] = now
        await self._redis.hset(keys.KEY_USES, key_id, str(time.time()))

    async def last_uses(self, key_ids: Sequence[str]) -> Sequence[float | None]:
        """When each key was last used, in Unix seconds to within a minute; None if it never was."""
        if not key_ids:
            return []
        found = await cast(
            Awaitable[list[bytes | None]], self._redis.hmget(keys.KEY_USES, list(key_ids))
        )
        return [None if text is None else float(text) for text in found]

    async def _change(
        self, key_id: str, change: Callable[[KeyRecord], KeyRecord], once: Once | None = None
    ) -> tuple[KeyRecord, bool]:
        """The key after the change, and whether this call made it rather than an earlier one."""

        async def attempt(pipe: Pipeline) -> tuple[KeyRecord, bool]:
            made = None if once is None else await once.made(pipe)
            before = _known(await read(pipe, keys.api_key(key_id)), key_id)
            after = before if made is not None else change(before)
            begin_writes(pipe)
            if after != before:
                after = after.model_copy(update={"revision": before.revision + 1})
                pipe.set(keys.api_key(key_id), after.model_dump_json())
            if once is not None and made is None:
                once.remember(pipe, key_id)
            return after, made is None

        watched = [keys.api_key(key_id)] + ([] if once is None else [once.key])
        return await transact(self._redis, attempt, *watched)

    def _proof(
        self, kind: CredentialKind, key_id: str, public_key: str
    ) -> tuple[Proof | None, str]:
        """A new credential's proof, if it needs one, and its text, if it has one."""
        if kind == "api_key":
            secret = credentials.new_secret()
            text = credentials.key_text(API_KEY_PREFIX, key_id, secret)
            return Proof(value=mac(self._pepper, secret)), text
        if kind == "hmac":
            salt = credentials.new_salt()
            secret = credentials.signing_secret(self._pepper, key_id, salt)
            return Proof(value=salt), credentials.key_text(SIGNING_SECRET_PREFIX, key_id, secret)
        return (Proof(value=public_key) if kind == "ed25519" else None), ""


def check_scopes(scopes: Sequence[str]) -> None:
    """Raises InvalidArgument when one of them is no scope."""
    violations = [
        FieldViolation(f"scopes[{position}]", f"{scope!r} is not a scope")
        for position, scope in enumerate(scopes)
        if scope not in SCOPES and scope not in WILDCARDS
    ]
    if violations:
        raise InvalidArgument(violations=violations)


async def _check_identity(pipe: Pipeline, record: KeyRecord) -> None:
    taken = record.identity and await read(pipe, keys.identity(record.credential, record.identity))
    if not taken:
        return
    # Need not be watched: whoever is revoked stays so.
    holder = await read(pipe, keys.api_key(taken.decode()))
    if holder is not None and KeyRecord.model_validate_json(holder).revoked_at is None:
        raise IdentityExists("another key stands for that identity")


def _write_new(pipe: Pipeline, record: KeyRecord) -> None:
    pipe.set(keys.api_key(record.id), record.model_dump_json())
    pipe.zadd(keys.API_KEYS, {_member(record): 0})
    pipe.zadd(keys.tenant_keys(record.tenant), {_member(record): 0})
    if record.identity:
        pipe.set(keys.identity(record.credential, record.identity), record.id)


def _member(record: KeyRecord) -> str:
    """The key's place in the indexes: texts in the order of creation."""
    return f"{round(record.created_at * 1e6):016x}:{record.id}"


def _known(text: bytes | None, key_id: str) -> KeyRecord:
    if text is None:
        raise KeyNotFound(f"no key {key_id[:40]!r}")
    return KeyRecord.model_validate_json(text)


def _check_live(record: KeyRecord) -> None:
    if record.revoked_at is not None:
        raise KeyRevoked(f"key {record.id!r} was revoked")


def _ending(proof: Proof, at: float) -> Proof:
    """The proof, good until that time at most."""
    if proof.expires_at is not None and proof.expires_at <= at:
        return proof
    return proof.model_copy(update={"expires_at": at})
