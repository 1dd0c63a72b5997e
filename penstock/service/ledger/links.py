"""A segment's link: the small file that chains it to the one before and says who made it.

The file is JSON in one canonical spelling (RFC 8259 with sorted names and no spaces). ``hash`` is
the SHA-256 over the hash before, the place in the chain and the SHA-256 of every event; ``mac`` is
the HMAC-SHA256 of everything else under the cluster's ledger key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

Ledger = Literal["usage", "audit"]
LEDGERS: tuple[Ledger, Ledger] = ("audit", "usage")
GENESIS = "0" * 64
"""The hash before the first segment's."""


class LinkBroken(Exception):
    """The file is no link that was made with the ledger key."""


class Link(BaseModel):
    """One segment's place in a chain. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ledger: Ledger
    segment: int
    """From 1 without gaps; the two chains share their numbers."""
    previous: str
    """The hash of the segment before, in hex."""
    hash: str
    events: int
    """All rows, removed ones included."""
    file_sha256: str
    """Of the Parquet file as it is now, in hex; also its name."""
    sources: dict[str, tuple[int, int]]
    """The first and last sequence of each source that the segment covers."""
    tenants: tuple[str, ...]
    """Whose events are still there, sorted; the empty name stands for calls by nobody."""
    oldest_at: float
    """When the first of the calls ended."""
    newest_at: float
    sealed_at: float
    last_outbox_id: str
    mac: str = ""

    def signed(self, key: bytes) -> Link:
        """The link with the mac that fits it."""
        return self.model_copy(update={"mac": _mac(self.model_dump(mode="json"), key)})

    def encoded(self) -> bytes:
        """The bytes of its file."""
        return _canonical(self.model_dump(mode="json"))


def decode_link(data: bytes, key: bytes) -> Link:
    """The link in a file; raises LinkBroken unless it is, byte by byte, one made with the key."""
    try:
        raw = json.loads(data)
        if not isinstance(raw, dict) or _canonical(raw) != data:
            raise LinkBroken("the link is not spelled canonically")
    except (ValueError, RecursionError):
        raise LinkBroken("the link is not JSON") from None
    if not hmac.compare_digest(str(raw.get("mac")).encode(), _mac(raw, key).encode()):
        raise LinkBroken("the link was not made with the ledger key, or was changed")
    try:
        return Link.model_validate(raw)
    except ValidationError:
        raise LinkBroken("the link has other fields than this version knows") from None


def chain_hash(previous: str, ledger: Ledger, segment: int, digests: Sequence[bytes]) -> str:
    """The hash of a segment, in hex, from the one before and the digests of its events."""
    hashed = hashlib.sha256(bytes.fromhex(previous))
    hashed.update(f"penstock:{ledger}:{segment}:{len(digests)}:".encode())
    for digest in digests:
        hashed.update(digest)
    return hashed.hexdigest()


def removal_mac(ledger: Ledger, segment: int, row: int, digest: bytes, key: bytes) -> bytes:
    """Proves that the holder of the ledger key removed the contents of a row."""
    message = f"penstock:removed:{ledger}:{segment}:{row}:".encode() + digest
    return hmac.digest(key, message, "sha256")


def _mac(raw: dict[str, Any], key: bytes) -> str:
    signed = {name: value for name, value in raw.items() if name != "mac"}
    return hmac.digest(key, b"penstock:link:" + _canonical(signed), "sha256").hex()


def _canonical(raw: dict[str, Any]) -> bytes:
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
