"""The key with which a client signs its requests, so that no secret ever leaves it."""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from penstock.client.configuration import ConfigurationError
from penstock.signatures import DEFAULT_AUDIENCE, Signed

_KEY_ID = re.compile(r"[0-9a-f]{16}")
_SECRET = re.compile(r"pss_([0-9a-f]{16})_([0-9A-Za-z]{43})_[0-9A-Za-z]{6}")


class SigningKey:
    """An Ed25519 private key, or a shared secret, and the id under which the cluster knows it.

    ``private_key`` is PEM text or bytes, the path of a PEM file, or the 32 raw bytes. ``audience``
    names the cluster, if its operator has given it another name than "penstock".
    Raises ConfigurationError.
    """

    def __init__(
        self,
        key_id: str,
        private_key: str | bytes | os.PathLike[str],
        *,
        audience: str = DEFAULT_AUDIENCE,
    ) -> None:
        if not _KEY_ID.fullmatch(key_id):
            raise ConfigurationError("a signing key's id is 16 hex digits")
        self.key_id = key_id
        self.audience = audience
        self._sign = _ed25519(private_key)

    @classmethod
    def of_secret(cls, text: str, *, audience: str = DEFAULT_AUDIENCE) -> SigningKey:
        """From a shared secret, ``pss_...``, which holds its id. Raises ConfigurationError."""
        match = _SECRET.fullmatch(text)
        if match is None:
            raise ConfigurationError("a shared signing secret looks like pss_<id>_<secret>_<check>")
        key = cls.__new__(cls)
        secret = match[2].encode()
        key.key_id, key.audience = match[1], audience
        key._sign = lambda signed: hmac.digest(secret, signed, "sha256")
        return key

    def authorization(self, method: str, message: bytes) -> str:
        """The header for one attempt at a call: it has a new nonce and is good once.

        ``message`` is the request, or a stream's first one, as it will be sent.
        """
        signed = Signed(self.key_id, int(time.time()), secrets.token_urlsafe(18), self.audience)
        signature = self._sign(signed.canonical(method, message))
        return replace(signed, signature=base64.b64encode(signature).decode()).header()

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self.key_id!r})"


def _ed25519(private_key: str | bytes | os.PathLike[str]) -> Callable[[bytes], bytes]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ConfigurationError(
            "signing with a private key needs cryptography: pip install 'penstock[signing]'"
        ) from None
    data = _bytes_of(private_key)
    try:
        if len(data) == 32:
            return Ed25519PrivateKey.from_private_bytes(data).sign
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the private key cannot be read: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("the private key is not an Ed25519 key")
    return key.sign


def _bytes_of(private_key: str | bytes | os.PathLike[str]) -> bytes:
    if isinstance(private_key, bytes):
        return private_key
    if isinstance(private_key, str) and private_key.lstrip().startswith("-----BEGIN"):
        return private_key.encode()
    try:
        return Path(private_key).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the private key cannot be read: {error}") from None
