"""SPIFFE ids, as https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md defines them."""

from __future__ import annotations

import re

LONGEST_ID_BYTES = 2048
LOOPBACK = "loopback"
"""Stands among trusted forwarders for any peer on this machine, such as a sidecar."""

_TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"
_DOMAIN = re.compile(_TRUST_DOMAIN)
_ID = re.compile(rf"spiffe://({_TRUST_DOMAIN})((?:/[A-Za-z0-9._-]+)*)")


def trust_domain_of(spiffe_id: str) -> str | None:
    """The id's trust domain; None when it is no workload's id.

    Nothing is normalised: an id with percent signs, a port, a query, an empty or dotted segment or
    a slash at its end is none.
    """
    if len(spiffe_id.encode()) > LONGEST_ID_BYTES:
        return None
    match = _ID.fullmatch(spiffe_id)
    if match is None or not match[2]:
        return None
    if {".", ".."} & set(match[2].split("/")):
        return None
    return match[1]


def is_trust_domain(name: str) -> bool:
    """Whether the name can be a trust domain's."""
    return _DOMAIN.fullmatch(name) is not None
