"""Who is calling, by API key; a checked key is trusted for a moment, so calls need no look-up."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from redis.exceptions import RedisError

from gateway.calls import Principal, Quota
from penstock.errors import CredentialsMissing, DependencyUnavailable, Unauthenticated
from penstock.service.api_keys import ApiKey, KeyRecord, KeyStore, parse

log = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""After this a key is looked up again, in the background."""
TRUST_SECONDS = 4.0
"""After this a call waits for the look-up, so a revoked key is refused within 5 s everywhere."""
OUTAGE_TRUST_SECONDS = 60.0
"""How long checked keys stay trusted while Redis cannot be reached."""
MOST_KEYS = 10_000

_BEARER = "bearer "


@dataclass(slots=True, eq=False)
class _Checked:
    principal: Principal
    at: float
    refreshing: asyncio.Task[None] | None = None


class Identifier:
    """Turns a call's metadata into a Principal."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self._checked: OrderedDict[bytes, _Checked] = OrderedDict()

    async def identify(self, metadata: Mapping[str, str | bytes]) -> Principal:
        """The caller; raises CredentialsMissing, Unauthenticated or DependencyUnavailable."""
        header = metadata.get("authorization")
        if not isinstance(header, str) or not header:
            raise CredentialsMissing
        fingerprint = hashlib.sha256(header.encode()).digest()
        checked = self._checked.get(fingerprint)
        if checked is not None:
            age = time.monotonic() - checked.at
            if age < FRESH_SECONDS:
                return checked.principal
            if age < TRUST_SECONDS:
                self._refresh_soon(header, fingerprint, checked)
                return checked.principal
        return await self._check(header, fingerprint)

    async def _check(self, header: str, fingerprint: bytes) -> Principal:
        key = _parse(header)
        try:
            record = await self._keys.find(key.id)
        except RedisError as error:
            known = self._checked.get(fingerprint)
            if known is not None and time.monotonic() - known.at < OUTAGE_TRUST_SECONDS:
                return known.principal
            raise DependencyUnavailable(
                "keys cannot be checked right now", retry_after_seconds=1.0
            ) from error
        if record is None or not self._keys.matches(record, key) or not _in_force(record):
            self._checked.pop(fingerprint, None)
            raise Unauthenticated("the API key is not valid")
        principal = _principal(record)
        self._checked[fingerprint] = _Checked(principal, time.monotonic())
        self._checked.move_to_end(fingerprint)
        if len(self._checked) > MOST_KEYS:
            self._checked.popitem(last=False)
        return principal

    def _refresh_soon(self, header: str, fingerprint: bytes, checked: _Checked) -> None:
        if checked.refreshing is None or checked.refreshing.done():
            checked.refreshing = asyncio.create_task(self._refresh(header, fingerprint))

    async def _refresh(self, header: str, fingerprint: bytes) -> None:
        try:
            await self._check(header, fingerprint)
        except Unauthenticated:
            log.info("a key in use is no longer valid")
        except DependencyUnavailable:
            log.warning("a key could not be looked up again")


def _parse(header: str) -> ApiKey:
    if header[: len(_BEARER)].lower() != _BEARER:
        raise Unauthenticated("authorization must be 'Bearer <API key>'")
    key = parse(header[len(_BEARER) :].strip())
    if key is None:
        raise Unauthenticated("the API key is malformed: a character may be missing or mistyped")
    return key


def _in_force(record: KeyRecord) -> bool:
    now = time.time()
    return record.revoked_at is None and (record.expires_at is None or now < record.expires_at)


def _principal(record: KeyRecord) -> Principal:
    return Principal(
        tenant=record.tenant,
        key_id=record.id,
        scopes=frozenset(record.scopes),
        highest_tier=record.highest_tier,
        quotas=(Quota(f"key:{record.id}", record.limits, record.budgets),),
        models=None if record.models is None else frozenset(record.models),
    )
