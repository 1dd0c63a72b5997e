"""Which models are wanted (control Redis) and which replicas serve them (soft Redis)."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from penstock.errors import (
    FieldViolation,
    InvalidArgument,
    ModelNotFound,
    VersionExists,
    VersionInUse,
    VersionNotFound,
)
from penstock.service import keys
from penstock.service.packages import ModelSpec

log = logging.getLogger(__name__)

REPLICA_TTL_SECONDS = 6.0
"""A replica whose heartbeats stop is forgotten after this."""
FAILURE_TTL_SECONDS = 120.0
"""A failure that is not reported again is forgotten after this."""

_RECORD = ConfigDict(frozen=True, extra="ignore")


class VersionRecord(BaseModel):
    """One immutable package of a model, and whether it is wanted."""

    model_config = _RECORD

    package_uri: str
    digest: str
    """``sha256:<hex>`` of the package's manifest."""
    spec: ModelSpec
    created_at: float
    """Unix seconds."""
    state: Literal["wanted", "retired"] = "wanted"


class TrafficShare(BaseModel):
    """The share of a model's calls that one version answers."""

    model_config = _RECORD

    version: str
    weight: int = Field(ge=0, le=1_000_000)


class ModelRecord(BaseModel):
    """One model: its versions by name, and how traffic is shared among them."""

    model_config = _RECORD

    name: str
    versions: dict[str, VersionRecord]
    traffic: tuple[TrafficShare, ...] = ()
    """Empty once the last version is retired."""

    def weight(self, version: str) -> int:
        """The version's weight; 0 when it takes no traffic."""
        return sum(share.weight for share in self.traffic if share.version == version)


class ServedModel(BaseModel):
    """One model version that a replica has loaded, warmed and found answering."""

    model_config = _RECORD

    name: str
    version: str
    triton_name: str
    instances: int
    """Executions that run side by side."""
    max_batch: int
    """Rows that one execution takes."""


class ReplicaRecord(BaseModel):
    """One server that answers the Open Inference Protocol."""

    model_config = _RECORD

    id: str
    endpoint: str
    """host:port."""
    region: str
    models: tuple[ServedModel, ...]


class ModelRegistry:
    """The desired state. Every change is one transaction and may be repeated after an error."""

    def __init__(self, control: Redis) -> None:
        self._redis = control
        self._parsed: dict[bytes, ModelRecord] = {}

    async def models(self) -> dict[str, ModelRecord]:
        """Every model by name; a record that this release cannot read is left out, and logged."""
        found = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(keys.MODELS))
        parsed: dict[bytes, ModelRecord] = {}
        for name, text in found.items():
            record = self._parsed.get(text)
            if record is None:
                try:
                    record = ModelRecord.model_validate_json(text)
                except ValidationError:
                    log.exception("model record unreadable", extra={"model": name.decode()})
                    continue
            parsed[text] = record
        self._parsed = parsed
        return {record.name: record for record in parsed.values()}

    async def register(
        self, package_uri: str, digest: str, spec: ModelSpec, *, take_traffic: bool = False
    ) -> ModelRecord:
        """Adds a version; the first one, or one that may ``take_traffic``, gets all traffic.

        The same package again changes nothing but brings a retired version back. Raises
        VersionExists when the version is another package.
        """

        def change(record: ModelRecord | None) -> ModelRecord:
            record = record or ModelRecord(name=spec.name, versions={})
            known = record.versions.get(spec.version)
            if known is not None and known.digest != digest:
                raise VersionExists(spec.name, spec.version)
            created_at = known.created_at if known else time.time()
            fresh = VersionRecord(
                package_uri=package_uri, digest=digest, spec=spec, created_at=created_at
            )
            traffic = record.traffic
            if take_traffic or not traffic:
                traffic = (TrafficShare(version=spec.version, weight=100),)
            versions = {**record.versions, spec.version: fresh}
            return record.model_copy(update={"versions": versions, "traffic": traffic})

        return await self._change(spec.name, change)

    async def retire(self, name: str, version: str) -> ModelRecord:
        """Lets every replica drain and unload the version.

        Raises ModelNotFound, VersionNotFound, or VersionInUse while the version takes traffic and
        another could take it instead; the last wanted version may go, and the model with it.
        """

        def change(record: ModelRecord | None) -> ModelRecord:
            record = _known(record, name, version)
            others = [v for v, r in record.versions.items() if v != version and r.state == "wanted"]
            if others and record.weight(version):
                raise VersionInUse(name, version)
            retired = record.versions[version].model_copy(update={"state": "retired"})
            versions = {**record.versions, version: retired}
            traffic = tuple(share for share in record.traffic if share.version != version)
            return record.model_copy(update={"versions": versions, "traffic": traffic})

        return await self._change(name, change)

    async def set_traffic(self, name: str, shares: Sequence[TrafficShare]) -> ModelRecord:
        """Shares the model's calls among wanted versions.

        Raises ModelNotFound, VersionNotFound (also for a retired one), InvalidArgument.
        """
        named = [share.version for share in shares]
        if len(set(named)) != len(named) or not any(share.weight for share in shares):
            violation = FieldViolation(
                "traffic", "each version once, and at least one weight above 0"
            )
            raise InvalidArgument(violations=[violation])

        def change(record: ModelRecord | None) -> ModelRecord:
            if record is None:
                raise ModelNotFound(name)
            for share in shares:
                if _known(record, name, share.version).versions[share.version].state != "wanted":
                    raise VersionNotFound(name, share.version)
            taking = tuple(share for share in shares if share.weight)
            return record.model_copy(update={"traffic": taking})

        return await self._change(name, change)

    async def _change(
        self, name: str, change: Callable[[ModelRecord | None], ModelRecord]
    ) -> ModelRecord:
        async def attempt(pipe: Pipeline) -> ModelRecord:
            text = await cast(Awaitable[bytes | None], pipe.hget(keys.MODELS, name))
            before = None if text is None else ModelRecord.model_validate_json(text)
            after = change(before)
            pipe.multi()  # type: ignore[no-untyped-call]
            if after != before:
                pipe.hset(keys.MODELS, name, after.model_dump_json())
            return after

        # transaction() runs ``attempt`` again whenever someone else wrote in between.
        result: Any = await self._redis.transaction(
            cast(Any, attempt), keys.MODELS, value_from_callable=True
        )
        return cast(ModelRecord, result)


class ReplicaRegistry:
    """What is served right now. The soft Redis may forget it; heartbeats bring it back."""

    def __init__(self, soft: Redis) -> None:
        self._redis = soft

    async def announce(self, record: ReplicaRecord) -> None:
        """Makes the replica visible for REPLICA_TTL_SECONDS."""
        key = keys.replica(record.id)
        await self._put(
            keys.REPLICAS, record.id, key, record.model_dump_json(), REPLICA_TTL_SECONDS
        )

    async def withdraw(self, replica_id: str) -> None:
        """Hides the replica at once."""
        await self._drop(keys.REPLICAS, replica_id, keys.replica(replica_id))

    async def replicas(self) -> list[ReplicaRecord]:
        """Every replica whose heartbeat is fresh, by id."""
        records = []
        for replica_id, text in (await self._live(keys.REPLICAS, keys.replica)).items():
            try:
                records.append(ReplicaRecord.model_validate_json(text))
            except ValidationError:
                log.exception("replica record unreadable", extra={"replica": replica_id})
        return records

    async def fail(self, name: str, version: str, reason: str) -> None:
        """Says why the version cannot be loaded, for FAILURE_TTL_SECONDS."""
        key = keys.failed(name, version)
        await self._put(keys.FAILURES, f"{name}:{version}", key, reason, FAILURE_TTL_SECONDS)

    async def clear_failure(self, name: str, version: str) -> None:
        """Forgets that the version could not be loaded."""
        await self._drop(keys.FAILURES, f"{name}:{version}", keys.failed(name, version))

    async def failures(self) -> dict[tuple[str, str], str]:
        """(name, version) -> why it cannot be loaded."""
        live = await self._live(keys.FAILURES, lambda member: keys.failed(*_name_version(member)))
        return {_name_version(member): reason.decode() for member, reason in live.items()}

    async def _put(self, index: str, member: str, key: str, text: str, seconds: float) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(key, text, px=round(seconds * 1000))
            pipe.sadd(index, member)
            await pipe.execute()

    async def _drop(self, index: str, member: str, key: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.srem(index, member)
            await pipe.execute()

    async def _live(self, index: str, key_of: Callable[[str], str]) -> dict[str, bytes]:
        found = await cast(Awaitable[set[bytes]], self._redis.smembers(index))
        members = sorted(member.decode() for member in found)
        if not members:
            return {}
        texts = await self._redis.mget([key_of(member) for member in members])
        found_texts = dict(zip(members, cast(list[bytes | None], texts), strict=True))
        expired = [member for member, text in found_texts.items() if text is None]
        if expired:
            await self._sweep(index, expired, key_of)
        return {member: text for member, text in found_texts.items() if text is not None}

    async def _sweep(self, index: str, members: list[str], key_of: Callable[[str], str]) -> None:
        """Takes members out of the index unless their record has come back meanwhile."""
        arguments = [index, *(key_of(member) for member in members), *members]
        await cast(Awaitable[int], self._redis.eval(_SWEEP, len(members) + 1, *arguments))


_SWEEP = """
local swept = 0
for i, member in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then
    swept = swept + redis.call('SREM', KEYS[1], member)
  end
end
return swept
"""


def _name_version(member: str) -> tuple[str, str]:
    name, _, version = member.rpartition(":")
    return name, version


def _known(record: ModelRecord | None, name: str, version: str) -> ModelRecord:
    if record is None:
        raise ModelNotFound(name)
    if version not in record.versions:
        raise VersionNotFound(name, version)
    return record
