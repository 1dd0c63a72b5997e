"""Whom the cluster trusts to name callers: token issuers and trust domains, from one YAML file."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.identity import spiffe
from penstock.service.credentials import SCOPES
from penstock.service.tenants import TENANT_ID

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""Asymmetric ones only: a shared secret would let every gateway's reader make tokens."""

ORDINARY_SCOPES = frozenset(
    scope for scope in SCOPES if scope.partition(":")[0] not in ("admin", "audit")
) - {"models:admin"}
"""What tokens can grant unless the file says otherwise: everything but administration."""

TenantId = Annotated[str, Field(pattern=f"^{TENANT_ID.pattern}$")]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list):
        return [text for text in value if isinstance(text, str)]
    return []


def _expanded(scope: str) -> frozenset[str]:
    """The scopes that a scope, a family or * stands for; none if it is nothing."""
    if scope == "*":
        return SCOPES
    family, _, action = scope.partition(":")
    if action == "*":
        return frozenset(one for one in SCOPES if one.startswith(f"{family}:"))
    return frozenset({scope}) & SCOPES


class IssuersInvalid(Exception):
    """The issuers file cannot be read or makes no sense; one line a mistake."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TenantRule(_Strict):
    """Which tenant a token's bearer belongs to: always the same, or as one of its claims says."""

    fixed: TenantId | None = None
    claim: str | None = None
    """Name of a claim that holds a text."""
    values: dict[str, TenantId] | None = None
    """The claim's values and the tenants that they mean; others are refused."""
    any_tenant: bool = False
    """Whether the claim, without ``values``, may name every tenant of the cluster."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.fixed is None) == (self.claim is None):
            raise ValueError("give either fixed or claim")
        if self.claim is not None and (self.values is None) != self.any_tenant:
            raise ValueError("a claim needs either values or any_tenant: true")
        return self

    def tenant_of(self, claims: Mapping[str, Any]) -> str | None:
        """The tenant's id; None when the claim says nothing that counts."""
        if self.claim is None:
            return self.fixed
        value = claims.get(self.claim)
        if not isinstance(value, str):
            return None
        if self.values is not None:
            return self.values.get(value)
        return value if TENANT_ID.fullmatch(value) else None


class ScopeRule(_Strict):
    """What a token's bearer may do."""

    claim: str = "scope"
    """Name of a claim that holds texts, or one text with spaces between them."""
    prefix: str = ""
    """Only texts that begin so count, and the rest of them is the scope."""
    mapping: dict[str, tuple[str, ...]] = {}
    """What the texts mean, without the prefix; those not listed stand for themselves."""
    granted: tuple[str, ...] = ()
    """What every bearer may do, whatever the claim says."""
    at_most: tuple[str, ...] = tuple(sorted(ORDINARY_SCOPES))
    """Never more than this; anything about administration must be listed to be granted."""

    @model_validator(mode="after")
    def _scopes(self) -> Self:
        stated = {*self.granted, *self.at_most}.union(*self.mapping.values())
        unknown = sorted(scope for scope in stated if not _expanded(scope))
        if unknown:
            raise ValueError(f"no such scopes: {', '.join(unknown)}")
        return self

    def scopes_of(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The scopes, each spelled out; texts that mean nothing here are passed over."""
        held: set[str] = set()
        for text in (*_texts(claims.get(self.claim)),):
            if text.startswith(self.prefix):
                name = text.removeprefix(self.prefix)
                held.update(*map(_expanded, self.mapping.get(name, (name,))))
        held.update(*map(_expanded, self.granted))
        allowed: set[str] = set().union(*map(_expanded, self.at_most))
        return tuple(sorted(held & allowed))


class Issuer(_Strict):
    """One OAuth2 authorization server or OpenID provider."""

    issuer: str
    """Its ``iss``, letter by letter."""
    audiences: tuple[str, ...] = Field(min_length=1)
    """A token must be for one of these."""
    algorithms: tuple[Algorithm, ...] = Field(min_length=1)
    """How its tokens may be signed; whatever a token says itself, nothing else is tried."""
    jwks_url: str = ""
    """Where its keys are; empty asks <issuer>/.well-known/openid-configuration."""
    tenant: TenantRule
    scopes: ScopeRule = ScopeRule()
    highest_tier: int = Field(default=2, ge=1, le=4)
    """The most urgent ServiceTier its bearers may ask for; 1 is the most urgent there is."""
    ca_file: str = ""
    """PEM file of the authorities behind its HTTPS; empty trusts the system's."""
    proxy: str = ""
    """URL of an HTTP proxy on the way to it."""
    insecure_loopback: bool = False
    """Whether plain http is good enough on this machine's own addresses; for development."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        for url in (self.issuer, self.jwks_url):
            if url and not self.allows(url):
                raise ValueError(f"{url} is not https")
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ValueError(f"{self.ca_file} is no file")
        return self

    def allows(self, url: str) -> bool:
        """Whether keys may be fetched from there."""
        parts = urlsplit(url)
        if parts.scheme == "https":
            return bool(parts.hostname)
        return parts.scheme == "http" and self.insecure_loopback and _is_loopback(parts.hostname)


class TrustDomain(_Strict):
    """All workloads of a SPIFFE trust domain, or those below a path of it."""

    trust_domain: str
    path_prefix: str = "/"
    """Only ids whose path begins so, such as /ns/shop/; ends with a slash."""
    tenant: TenantId
    scopes: tuple[str, ...] = Field(min_length=1)
    highest_tier: int = Field(default=2, ge=1, le=4)
    """The most urgent ServiceTier its workloads may ask for; 1 is the most urgent there is."""

    @model_validator(mode="after")
    def _valid(self) -> Self:
        if not spiffe.is_trust_domain(self.trust_domain):
            raise ValueError(f"{self.trust_domain!r} is no trust domain")
        if not (self.path_prefix.startswith("/") and self.path_prefix.endswith("/")):
            raise ValueError("path_prefix begins and ends with a slash")
        unknown = [scope for scope in self.scopes if not _expanded(scope)]
        if unknown:
            raise ValueError(f"no such scopes: {', '.join(unknown)}")
        return self

    def covers(self, spiffe_id: str) -> bool:
        """Whether a valid SPIFFE id belongs here."""
        return spiffe_id.startswith(f"spiffe://{self.trust_domain}{self.path_prefix}")


class Issuers(_Strict):
    """The whole file."""

    issuers: tuple[Issuer, ...] = ()
    trust_domains: tuple[TrustDomain, ...] = ()

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        names = [one.issuer for one in self.issuers]
        domains = [(one.trust_domain, one.path_prefix) for one in self.trust_domains]
        if len({*names}) != len(names) or len({*domains}) != len(domains):
            raise ValueError("the same issuer or trust domain is listed twice")
        return self

    def domain_of(self, spiffe_id: str) -> TrustDomain | None:
        """The entry for a valid SPIFFE id; of several, the one with the longest path."""
        found = [one for one in self.trust_domains if one.covers(spiffe_id)]
        return max(found, key=lambda one: len(one.path_prefix), default=None)


NOBODY = Issuers()


def read_issuers(path: str) -> Issuers:
    """The file's contents, nobody for an empty path. Raises IssuersInvalid."""
    if not path:
        return NOBODY
    try:
        return Issuers.model_validate(yaml.safe_load(Path(path).read_text()) or {})
    except ValidationError as error:
        mistakes = (
            f"{path}: {'.'.join(str(part) for part in mistake['loc'])}: {mistake['msg']}"
            for mistake in error.errors()
        )
        raise IssuersInvalid("\n".join(mistakes)) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise IssuersInvalid(f"{path}: {error}") from None


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
