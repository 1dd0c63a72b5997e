"""What the requests of TenantsService and KeysService may hold."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.allowed_models import AllowedModels
from gateway.validation.allowances import (
    check_budgets,
    check_display_name,
    check_labels,
    check_limits,
    check_model_limits,
    check_models,
    check_regions,
)
from gateway.validation.fields import Violations, check_enum, check_text, quote
from gateway.validation.pages import check_page
from penstock.api.admin.v1 import keys_pb2, tenants_pb2
from penstock.service.credentials import SCOPES, WILDCARDS
from penstock.service.tenants import TENANT_ID, TenantRecord

LONGEST_IDEMPOTENCY_KEY = 128
LONGEST_SUBJECT = 255
LONGEST_SPIFFE_ID = 2_048
PUBLIC_KEY_BYTES = 32
LONGEST_OVERLAP_SECONDS = 30 * 86_400
LARGEST_WEIGHT = 1_000
LONGEST_RETENTION_SECONDS = 100 * 366 * 86_400

_HIGHEST_TIER_NUMBER = 4
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_LATEST_SECONDS = 253_402_300_799
"""The end of the year 9999, where timestamps end."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What requests have to fit that the cluster's configuration says."""

    issuers: Collection[str] = field(default_factory=frozenset)
    """The token issuers that it trusts."""
    currency: str = ""
    """The price table's, as ISO 4217 has it; empty where there is none."""


def check_tenant(tenant: tenants_pb2.Tenant, cluster: Cluster, violations: Violations) -> None:
    """Checks a tenant's fields, in a request's field ``tenant``."""
    if not TENANT_ID.fullmatch(tenant.id):
        text = f"{quote(tenant.id)} must be 1 to 40 of a-z 0-9 and -, beginning with a letter"
        violations.add("tenant.id", text)
    check_display_name("tenant.display_name", tenant.display_name, violations)
    check_enum("tenant.highest_tier", tenant.highest_tier, _HIGHEST_TIER_NUMBER, violations)
    if tenant.weight > LARGEST_WEIGHT:
        violations.add("tenant.weight", f"is {tenant.weight:,}; 1 to {LARGEST_WEIGHT:,} is allowed")
    check_labels("tenant.labels", tenant.labels, violations)
    check_limits("tenant.limits", tenant.limits, violations)
    check_budgets("tenant.budgets", tenant.budgets, cluster.currency, violations)
    check_models("tenant.allowed_models", tenant.allowed_models, violations, prefixes=True)
    check_regions("tenant.allowed_regions", tenant.allowed_regions, violations)
    check_model_limits("tenant.model_limits", tenant.model_limits, cluster.currency, violations)
    _check_retention(tenant.retention, violations)


def _check_retention(retention: tenants_pb2.Retention, violations: Violations) -> None:
    for descriptor, kept in retention.ListFields():
        at = f"tenant.retention.{descriptor.name}"
        if not _possible(kept) or not 0 < seconds_of(kept) <= LONGEST_RETENTION_SECONDS:
            violations.add(at, "must be longer than 0 and at most 100 years")
    events, payloads = retention.audit_events, retention.audit_payloads
    both = retention.HasField("audit_events") and retention.HasField("audit_payloads")
    if both and seconds_of(payloads) > seconds_of(events):
        violations.add("tenant.retention.audit_payloads", "is longer than the events are kept")


def check_key(key: keys_pb2.Key, cluster: Cluster, violations: Violations) -> None:
    """Checks a key's fields, in a request's field ``key``, but for its credential and tenant."""
    check_display_name("key.display_name", key.display_name, violations)
    check_enum("key.highest_tier", key.highest_tier, _HIGHEST_TIER_NUMBER, violations)
    check_labels("key.labels", key.labels, violations)
    check_limits("key.limits", key.limits, violations)
    check_budgets("key.budgets", key.budgets, cluster.currency, violations)
    check_models("key.allowed_models", key.allowed_models, violations, prefixes=False)
    check_regions("key.allowed_regions", key.allowed_regions, violations)
    if not key.scopes:
        violations.add("key.scopes", "is empty; give at least one")
    for index, scope in enumerate(key.scopes):
        if scope not in SCOPES and scope not in WILDCARDS:
            violations.add(f"key.scopes[{index}]", f"{quote(scope)} is not a scope")
    if key.HasField("expire_time") and not _is_time(key.expire_time):
        violations.add("key.expire_time", "is not a time between the years 1970 and 9999")


def check_credential(
    credential: keys_pb2.Credential, cluster: Cluster, violations: Violations
) -> None:
    """Checks what the bearer of a new key will show."""
    at, kind = "key.credential", credential.WhichOneof("kind")
    if kind == "signing":
        check_public_key(
            f"{at}.signing.ed25519_public_key", credential.signing.ed25519_public_key, violations
        )
    elif kind == "spiffe":
        name = credential.spiffe.spiffe_id
        if not is_workload(name):
            violations.add(f"{at}.spiffe.spiffe_id", f"{quote(name)} is not a workload's SPIFFE id")
    elif kind == "jwt":
        if credential.jwt.issuer not in cluster.issuers:
            text = f"{quote(credential.jwt.issuer)} is not one of the cluster's issuers"
            violations.add(f"{at}.jwt.issuer", text)
        check_text(f"{at}.jwt.subject", credential.jwt.subject, violations)
        if len(credential.jwt.subject) > LONGEST_SUBJECT:
            violations.add(f"{at}.jwt.subject", f"has over {LONGEST_SUBJECT} characters")


def check_within(key: keys_pb2.Key, tenant: TenantRecord, violations: Violations) -> None:
    """Checks that the key may do no more than its tenant."""
    if key.highest_tier and key.highest_tier < tenant.highest_tier:
        violations.add("key.highest_tier", "is above the tenant's highest tier")
    allowed = AllowedModels(tenant.id, tenant.allowed_models)
    for index, model in enumerate(key.allowed_models):
        if model not in allowed:
            violations.add(f"key.allowed_models[{index}]", "is none of the tenant's models")
    for index, region in enumerate(key.allowed_regions):
        if tenant.allowed_regions and region not in tenant.allowed_regions:
            violations.add(f"key.allowed_regions[{index}]", "is none of the tenant's regions")


def check_public_key(at: str, public_key: bytes, violations: Violations) -> None:
    """Checks an Ed25519 public key."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        violations.add(at, f"has {len(public_key)} bytes; an Ed25519 key has {PUBLIC_KEY_BYTES}")


def check_overlap(request: keys_pb2.RotateKeyRequest, violations: Violations) -> None:
    """Checks how long a rotated key's old secret stays good."""
    good = (
        _possible(request.overlap) and 0 <= seconds_of(request.overlap) <= LONGEST_OVERLAP_SECONDS
    )
    if request.HasField("overlap") and not good:
        violations.add("overlap", "must be 0 to 30 days")


def check_idempotency_key(chosen: str, violations: Violations) -> None:
    """Checks the text that makes a call repeatable."""
    if len(chosen) > LONGEST_IDEMPOTENCY_KEY:
        violations.add("idempotency_key", f"has over {LONGEST_IDEMPOTENCY_KEY} characters")


def check_list(
    request: tenants_pb2.ListTenantsRequest | keys_pb2.ListKeysRequest, last_state: int
) -> None:
    """Checks a list's page and states. Raises InvalidArgument."""
    violations = Violations()
    check_page(request.page_size, request.page_token, violations)
    for index, state in enumerate(request.states):
        if not 0 < state <= last_state:
            violations.add(f"states[{index}]", f"{state} is not a state")
    violations.refuse()


def is_workload(spiffe_id: str) -> bool:
    """Whether the text is a SPIFFE id with a path (SPIFFE-ID, section 2)."""
    return (
        len(spiffe_id) <= LONGEST_SPIFFE_ID
        and _SPIFFE.fullmatch(spiffe_id) is not None
        and not {".", ".."} & set(spiffe_id.split("/"))
    )


def seconds_of(duration: Duration) -> float:
    """The length in seconds."""
    return duration.seconds + duration.nanos / 1e9


def _possible(duration: Duration) -> bool:
    return abs(duration.nanos) < 1_000_000_000 and duration.seconds * duration.nanos >= 0


def _is_time(at: Timestamp) -> bool:
    return 0 <= at.seconds <= _LATEST_SECONDS and 0 <= at.nanos < 1_000_000_000
