"""Signed requests: ``authorization: Penstock-Signature v=1,key=...,ts=...``.

The head is read and its time checked before anything else; the signature once the first message is
here, still undecoded; the nonce is burnt last, in the control Redis, so that only a key's holder
can make the cluster remember anything and a message passes once, whichever gateway it reaches.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway import keys
from penstock.errors import DependencyUnavailable, Unauthenticated
from penstock.service.api_keys import KeyRecord, KeyStore
from penstock.signatures import SCHEME, WINDOW_SECONDS, Signed, parse

NONCE_SECONDS = 2 * WINDOW_SECONDS + 60
"""A time stamp is good from one window before its time to one after it; the minute is for gateways
whose clocks differ."""


class Signatures:
    """Checks signed requests that are addressed to ``audience``."""

    def __init__(self, store: KeyStore, control: Redis, audience: str) -> None:
        self._store = store
        self._control = control
        self._audience = audience

    def read(self, header: str) -> Signed:
        """The head of a signed request that came in time. Raises Unauthenticated."""
        signed = parse(header)
        if signed is None:
            raise Unauthenticated(
                f"malformed: '{SCHEME} v=1,key=,ts=,nonce=,aud=,sig=' in this order"
            )
        if abs(time.time() - signed.timestamp) > WINDOW_SECONDS:
            raise Unauthenticated(
                f"the request was signed more than {WINDOW_SECONDS} s from the gateway's time"
            )
        if signed.audience != self._audience:
            raise Unauthenticated("the request is signed for another audience")
        return signed

    async def find(self, key_id: str) -> KeyRecord:
        """The key that signs, whether in force or not. Raises Unauthenticated, RedisError."""
        record = await self._store.find(key_id)
        if record is None or record.credential not in ("ed25519", "hmac"):
            raise Unauthenticated("no such signing key")
        return record

    async def check(self, signed: Signed, record: KeyRecord, method: str, message: bytes) -> None:
        """Lets a message pass once. Raises Unauthenticated, DependencyUnavailable."""
        try:
            signature = base64.b64decode(signed.signature, validate=True)
        except binascii.Error:
            raise Unauthenticated("the signature is not base64") from None
        text = signed.canonical(method, message)
        if not (
            _signed_by_key(record, text, signature)
            if record.credential == "ed25519"
            else self._signed_with_secret(record, text, signature)
        ):
            raise Unauthenticated("the signature does not fit the request")
        await self._burn(signed)

    def _signed_with_secret(self, record: KeyRecord, text: bytes, signature: bytes) -> bool:
        fits = [
            hmac.compare_digest(hmac.digest(secret.encode(), text, "sha256"), signature)
            for secret in self._store.signing_secrets(record)
        ]
        return any(fits)

    async def _burn(self, signed: Signed) -> None:
        name = keys.nonce(signed.key_id, signed.nonce)
        try:
            first = await self._control.set(name, b"1", ex=NONCE_SECONDS, nx=True)
        except RedisError as error:
            raise DependencyUnavailable(
                "nonces cannot be checked right now", retry_after_seconds=1.0
            ) from error
        if not first:
            raise Unauthenticated("the request was seen before: its nonce is used up")


def _signed_by_key(record: KeyRecord, text: bytes, signature: bytes) -> bool:
    now = time.time()
    for proof in record.proofs:
        if not proof.good(now):
            continue
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(proof.value))
            public.verify(signature, text)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False
