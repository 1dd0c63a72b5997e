"""Which credential a call shows, and whose it is: exactly one counts, and it makes the Principal.

A workload identity counts only where the cluster knows it: as a key, or through its trust domain.
Shown together with a bearer text or a signature it must belong to the same tenant, and then the
other one says what the call may do; two tenants in one call are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from redis.exceptions import RedisError

from gateway.calls import Principal
from gateway.identity.api_keys import PREFIX, ApiKeys
from gateway.identity.issuers import NOBODY, Issuers
from gateway.identity.mesh import Mesh, Peer
from gateway.identity.principals import Principals
from gateway.identity.signatures import Signatures
from gateway.identity.tokens import Tokens
from gateway.identity.trust import NEVER, Trust
from penstock.errors import CredentialsMissing, Unauthenticated
from penstock.service.api_keys import KeyRecord, KeyStore
from penstock.service.tenants import TenantRecord, TenantStore
from penstock.signatures import SCHEME, Signed

_BEARER = "bearer "
_SIGNATURE = f"{SCHEME.lower()} "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as the metadata tell."""

    principal: Principal
    check: Callable[[bytes], Awaitable[None]] | None = None
    """To be awaited with the first message's bytes before they are decoded; raises
    Unauthenticated or DependencyUnavailable. None where the metadata prove everything."""


@dataclass(frozen=True, slots=True)
class _Known:
    record: KeyRecord
    tenant: TenantRecord
    caller: Caller = field(compare=False)
    """Made of the other two."""


class Identifier:
    """Turns a call's metadata and connection into its caller."""

    def __init__(
        self,
        keys: KeyStore,
        tenants: TenantStore,
        *,
        issuers: Issuers = NOBODY,
        signatures: Signatures | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        self._keys = keys
        self._principals = Principals(tenants)
        self._api_keys = ApiKeys(keys)
        self._tokens = Tokens(issuers, keys)
        self._issuers = issuers
        self._signatures = signatures
        self._mesh = mesh
        self._known: Trust[_Known] = Trust()
        self._workloads: Trust[_Known | None] = Trust()

    async def identify(
        self, method: str, metadata: Mapping[str, str | bytes], peer: Peer
    ) -> Caller:
        """The caller of a method, given by its full name.

        Raises CredentialsMissing, Unauthenticated, TenantSuspended, DependencyUnavailable.
        """
        header = metadata.get("authorization")
        if not isinstance(header, str) or not header:
            header = ""
        if self._mesh is not None:
            workload = self._mesh.identity(peer, metadata)
            if workload:
                return await self._with_workload(workload, header, method)
        if not header:
            raise CredentialsMissing
        return await self._with_header(header, method)

    async def close(self) -> None:
        """Closes the connections to token issuers."""
        await self._tokens.close()

    async def _with_workload(self, workload: str, header: str, method: str) -> Caller:
        known = await self._workloads.resolve(
            b"spiffe:" + workload.encode(), partial(self._check_workload, workload)
        )
        if not header:
            if known is None:
                raise Unauthenticated("the workload's identity is not known here")
            return known.caller
        caller = await self._with_header(header, method)
        if known is not None and known.caller.principal.tenant != caller.principal.tenant:
            raise Unauthenticated("the credentials belong to two tenants")
        return caller

    async def _with_header(self, header: str, method: str) -> Caller:
        fingerprint = hashlib.sha256(header.encode()).digest()
        known = self._known.fresh(fingerprint)
        if known is not None:
            return known.caller
        if header[: len(_SIGNATURE)].lower() == _SIGNATURE:
            return await self._signed(header, method)
        if header[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated("authorization must be 'Bearer <API key or token>'")
        text = header[len(_BEARER) :].strip(" ")
        return (await self._known.resolve(fingerprint, partial(self._check_bearer, text))).caller

    async def _signed(self, header: str, method: str) -> Caller:
        signatures = self._signatures
        if signatures is None:
            raise Unauthenticated("signed requests are not taken here")
        signed = signatures.read(header)
        known = await self._known.resolve(
            b"signer:" + signed.key_id.encode(), partial(self._check_signer, signatures, signed)
        )
        check = partial(signatures.check, signed, known.record, method)
        return Caller(known.caller.principal, check)

    async def _check_bearer(self, text: str) -> tuple[_Known, float]:
        if text.startswith(PREFIX) or not self._tokens.fits(text):
            return await self._stand_for(await self._api_keys.verify(text))
        record, until = await self._tokens.verify(text)
        known, ends = await self._stand_for(record)
        return known, min(ends, until)

    async def _check_signer(self, signatures: Signatures, signed: Signed) -> tuple[_Known, float]:
        return await self._stand_for(await signatures.find(signed.key_id))

    async def _check_workload(self, workload: str) -> tuple[_Known | None, float]:
        record = await self._keys.find_identity("spiffe", workload)
        if record is not None:
            return await self._stand_for(record)
        domain = self._issuers.domain_of(workload)
        if domain is None:
            return None, NEVER
        record = KeyRecord(
            id=f"spiffe-{hashlib.sha256(workload.encode()).hexdigest()[:16]}",
            tenant=domain.tenant,
            name="",
            credential="spiffe",
            identity=workload,
            scopes=domain.scopes,
            highest_tier=domain.highest_tier,
            created_at=0.0,
        )
        return await self._stand_for(record)

    async def _stand_for(self, record: KeyRecord) -> tuple[_Known, float]:
        principal, tenant = await self._principals.of(record)
        if record.created_at:
            await self._touch(record)
        return _Known(record, tenant, Caller(principal)), record.expires_at or NEVER

    async def _touch(self, record: KeyRecord) -> None:
        # When it was last used is for people; no call depends on it.
        with suppress(RedisError):
            await self._keys.touch(record.id)
