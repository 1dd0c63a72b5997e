"""Tenants: who they are, what they may use, how long their data is kept."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from penstock.errors import (
    EtagMismatch,
    FieldViolation,
    InvalidArgument,
    TenantErased,
    TenantExists,
    TenantNotFound,
)
from penstock.service import keys
from penstock.service.credentials import KeyRecord
from penstock.service.idempotency import Once
from penstock.service.quotas import NO_LIMITS, Budget, Limits, ModelLimits
from penstock.service.redis import begin_writes, read, transact

TENANT_ID = re.compile(r"[a-z][a-z0-9-]{0,39}")

TenantState = Literal["active", "suspended", "erased"]


class Retention(BaseModel):
    """How long a tenant's data is kept, in seconds; None takes the cluster's default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: float | None = None
    jobs: float | None = None
    usage_events: float | None = None
    audit_events: float | None = None
    audit_payloads: float | None = None


class TenantRecord(BaseModel):
    """A tenant as it is stored. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    display_name: str = ""
    state: TenantState = "active"
    limits: Limits = NO_LIMITS
    budgets: tuple[Budget, ...] = ()
    model_limits: tuple[ModelLimits, ...] = ()
    allowed_models: tuple[str, ...] = ()
    """Names, or prefixes that end with *; empty allows all public ones."""
    allowed_regions: tuple[str, ...] = ()
    """Empty allows all."""
    highest_tier: int = Field(default=2, ge=1, le=4)
    """The most urgent ServiceTier that its keys may have; 1 is the most urgent there is."""
    weight: int = Field(default=100, ge=1, le=1000)
    retention: Retention = Retention()
    audit_payloads: bool = False
    labels: dict[str, str] = {}
    revision: int = 1
    """Grows with every change."""
    created_at: float = Field(default_factory=time.time)
    updated_at: float = Field(default_factory=time.time)

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return f"{self.revision:x}"


class TenantStore:
    """The tenants in the control Redis. Redis failures raise redis.exceptions.RedisError.

    Every change is one WATCH/MULTI transaction: changes are rare, and their rules are Python.
    """

    def __init__(self, control: Redis) -> None:
        self._redis = control

    async def create(self, record: TenantRecord, once: Once | None = None) -> TenantRecord:
        """Adds an active tenant with a new pseudonym key; a repeated call finds the first's.

        Raises InvalidArgument, TenantExists (also for an erased tenant's id), IdempotencyConflict.
        """
        if not TENANT_ID.fullmatch(record.id):
            text = "must be 1 to 40 of a-z 0-9 and -, beginning with a letter"
            raise InvalidArgument(violations=[FieldViolation("tenant.id", text)])
        now = time.time()
        fresh = {"state": "active", "revision": 1, "created_at": now, "updated_at": now}
        record = record.model_copy(update=fresh)
        pseudonym_key = secrets.token_bytes(32)

        async def attempt(pipe: Pipeline) -> TenantRecord:
            made = None if once is None else await once.made(pipe)
            text = await read(pipe, keys.tenant(record.id))
            if made is None and text is not None:
                raise TenantExists(f"tenant {record.id!r} exists")
            begin_writes(pipe)
            if text is not None:
                return TenantRecord.model_validate_json(text)
            pipe.set(keys.tenant(record.id), record.model_dump_json())
            pipe.set(keys.pseudonym_key(record.id), pseudonym_key)
            pipe.zadd(keys.TENANTS, {record.id: 0})
            if once is not None:
                once.remember(pipe, record.id)
            return record

        watched = [keys.tenant(record.id)] + ([] if once is None else [once.key])
        return await transact(self._redis, attempt, *watched)

    async def ensure(self, record: TenantRecord) -> TenantRecord:
        """The tenant of that id, made as described if there is none. Raises InvalidArgument."""
        found = await self.find(record.id)
        if found is not None:
            return found
        try:
            return await self.create(record)
        except TenantExists:
            return await self.get(record.id)

    async def find(self, tenant_id: str) -> TenantRecord | None:
        """The tenant of that id, whatever its state."""
        if not TENANT_ID.fullmatch(tenant_id):
            return None
        text = await read(self._redis, keys.tenant(tenant_id))
        return None if text is None else TenantRecord.model_validate_json(text)

    async def get(self, tenant_id: str) -> TenantRecord:
        """The tenant of that id, whatever its state. Raises TenantNotFound."""
        return await read_tenant(self._redis, tenant_id)

    async def list(
        self, *, after: str = "", most: int = 100, states: Collection[TenantState] = ()
    ) -> tuple[list[TenantRecord], str]:
        """One page by id, and the id after which the next begins, empty when this was the last.

        No ``states`` means all but the erased.
        """
        wanted = frozenset(states) or {"active", "suspended"}
        page: list[TenantRecord] = []
        while True:
            begin = f"({after}" if after else "-"
            found: Any = await self._redis.zrange(
                keys.TENANTS, begin, "+", bylex=True, offset=0, num=most + 1
            )
            for text in await self._redis.mget([keys.tenant(i.decode()) for i in found] or [""]):
                record = None if text is None else TenantRecord.model_validate_json(text)
                if record is not None and record.state in wanted:
                    if len(page) == most:
                        return page, page[-1].id
                    page.append(record)
            if len(found) <= most:
                return page, ""
            after = found[-1].decode()

    async def update(
        self, tenant_id: str, change: Callable[[TenantRecord], TenantRecord], *, etag: str = ""
    ) -> TenantRecord:
        """The tenant after ``change``, which may run more than once and may raise.

        Raises TenantNotFound, TenantErased, EtagMismatch (unless ``etag`` is empty).
        """

        def allowed(record: TenantRecord) -> TenantRecord:
            if record.state == "erased":
                raise TenantErased(f"tenant {tenant_id!r} was erased")
            _check_etag(record, etag)
            return change(record)

        async def attempt(pipe: Pipeline) -> TenantRecord:
            before = await read_tenant(pipe, tenant_id)
            after = allowed(before)
            begin_writes(pipe)
            if after != before:
                after = _revised(after)
                pipe.set(keys.tenant(tenant_id), after.model_dump_json())
            return after

        return await transact(self._redis, attempt, keys.tenant(tenant_id))

    async def suspend(self, tenant_id: str) -> TenantRecord:
        """Refuses the tenant's calls until it is resumed. Raises TenantNotFound, TenantErased."""
        return await self._set_state(tenant_id, "suspended")

    async def resume(self, tenant_id: str) -> TenantRecord:
        """Ends a suspension. Raises TenantNotFound, TenantErased."""
        return await self._set_state(tenant_id, "active")

    async def erase(self, tenant_id: str, *, etag: str) -> TenantRecord:
        """Empties the tenant for good, revokes and empties its keys, destroys its pseudonym key.

        All in one transaction. An erased tenant comes back unchanged. Raises TenantNotFound,
        EtagMismatch (also for an empty ``etag``).
        """

        async def attempt(pipe: Pipeline) -> TenantRecord:
            before = await read_tenant(pipe, tenant_id)
            if before.state == "erased":
                begin_writes(pipe)
                return before
            _check_etag(before, etag or "none")
            held = await _keys_of(pipe, tenant_id)
            after = _revised(_emptied(before))
            identities = await _identities_of(pipe, held)
            begin_writes(pipe)
            pipe.set(keys.tenant(tenant_id), after.model_dump_json())
            pipe.delete(keys.pseudonym_key(tenant_id), *identities)
            for key in held:
                pipe.set(keys.api_key(key.id), _emptied_key(key).model_dump_json())
            return after

        watched = (keys.tenant(tenant_id), keys.tenant_keys(tenant_id))
        return await transact(self._redis, attempt, *watched)

    async def pseudonym(self, tenant_id: str) -> bytes | None:
        """The 32 bytes that key the tenant's digests and pseudonyms; None once it is erased."""
        return await read(self._redis, keys.pseudonym_key(tenant_id))

    async def _set_state(self, tenant_id: str, state: TenantState) -> TenantRecord:
        return await self.update(
            tenant_id, lambda record: record.model_copy(update={"state": state})
        )


async def _keys_of(pipe: Pipeline, tenant_id: str) -> list[KeyRecord]:
    """The tenant's keys, watched from here on."""
    members = await cast(Awaitable[list[bytes]], pipe.zrange(keys.tenant_keys(tenant_id), 0, -1))
    names = [keys.api_key(member.decode().rpartition(":")[2]) for member in members]
    if not names:
        return []
    await pipe.watch(*names)
    texts = await cast(Awaitable[list[bytes | None]], pipe.mget(names))
    return [KeyRecord.model_validate_json(text) for text in texts if text is not None]


async def _identities_of(pipe: Pipeline, held: Sequence[KeyRecord]) -> list[str]:
    """What leads to one of the keys, watched; a revoked one's may lead to another tenant's now."""
    names = {keys.identity(key.credential, key.identity) for key in held if key.identity}
    if not names:
        return []
    await pipe.watch(*names)
    ids = {key.id.encode() for key in held}
    return [name for name in names if await read(pipe, name) in ids]


async def read_tenant(redis: Redis | Pipeline, tenant_id: str) -> TenantRecord:
    """The tenant of that id. Raises TenantNotFound."""
    # Other texts could spell the names of other keys.
    possible = TENANT_ID.fullmatch(tenant_id) is not None
    text = await read(redis, keys.tenant(tenant_id)) if possible else None
    if text is None:
        raise TenantNotFound(f"no tenant {tenant_id[:40]!r}")
    return TenantRecord.model_validate_json(text)


def _check_etag(record: TenantRecord, etag: str) -> None:
    if etag and etag != record.etag:
        raise EtagMismatch(f"tenant {record.id!r} has changed since its etag was read")


def _revised(record: TenantRecord) -> TenantRecord:
    return record.model_copy(update={"revision": record.revision + 1, "updated_at": time.time()})


def _emptied(record: TenantRecord) -> TenantRecord:
    return TenantRecord(
        id=record.id,
        state="erased",
        revision=record.revision,
        created_at=record.created_at,
    )


def _emptied_key(key: KeyRecord) -> KeyRecord:
    """What is left of an erased tenant's key: nothing that leads to a person."""
    gone = {"name": "", "identity": "", "labels": {}, "proofs": ()}
    ended = {"revoked_at": key.revoked_at or time.time(), "revision": key.revision + 1}
    return key.model_copy(update=gone | ended)
