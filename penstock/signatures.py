"""How a request is signed: the text that is signed, and the header that carries the signature.

The one place where both sides agree; docs/identity.md describes it byte by byte.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

SCHEME = "Penstock-Signature"
VERSION = "penstock-signature-v1"
WINDOW_SECONDS = 300
"""How far a request's time may be from the gateway's, either way."""
DEFAULT_AUDIENCE = "penstock"

_HEADER = re.compile(
    rf"{SCHEME} v=1,"
    r"key=(?P<key>[0-9a-f]{16}),"
    r"ts=(?P<ts>[1-9][0-9]{0,11}),"
    r"nonce=(?P<nonce>[A-Za-z0-9_-]{22,64}),"
    r"aud=(?P<aud>[A-Za-z0-9._:/-]{1,255}),"
    r"sig=(?P<sig>[A-Za-z0-9+/]{42,86}={0,2})"
)


@dataclass(frozen=True, slots=True)
class Signed:
    """What is signed besides method and message, and the signature once there is one."""

    key_id: str
    timestamp: int
    """Unix seconds."""
    nonce: str
    """At least 128 random bits as 22 to 64 characters of A-Z, a-z, 0-9, - and _."""
    audience: str
    """Which cluster is meant: a signature for one is worth nothing at another."""
    signature: str = ""
    """Standard base64."""

    def canonical(self, method: str, message: bytes) -> bytes:
        """The text that is signed: seven lines of ASCII, joined by line feeds.

        ``method`` is the full name, such as /penstock.api.inference.v1.InferenceService/Classify;
        ``message`` is the request as it is sent, or a stream's first one, or empty if it has none.
        """
        lines = (
            VERSION,
            method,
            self.key_id,
            str(self.timestamp),
            self.nonce,
            self.audience,
            hashlib.sha256(message).hexdigest(),
        )
        return "\n".join(lines).encode("ascii")

    def header(self) -> str:
        """The value of ``authorization``."""
        return (
            f"{SCHEME} v=1,key={self.key_id},ts={self.timestamp},nonce={self.nonce},"
            f"aud={self.audience},sig={self.signature}"
        )


def parse(header: str) -> Signed | None:
    """The parts of a header; None when it has another form. The scheme's case does not matter."""
    rest = header[len(SCHEME) :]
    if header[: len(SCHEME)].lower() != SCHEME.lower():
        return None
    match = _HEADER.fullmatch(SCHEME + rest)
    if match is None:
        return None
    return Signed(match["key"], int(match["ts"]), match["nonce"], match["aud"], match["sig"])
