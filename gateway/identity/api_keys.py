"""API keys: ``authorization: Bearer psk_...``."""

from __future__ import annotations

from penstock.errors import Unauthenticated
from penstock.service.api_keys import KeyRecord, KeyStore, parse

PREFIX = "psk_"


class ApiKeys:
    """Finds the key that a text is the secret of."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys

    async def verify(self, text: str) -> KeyRecord:
        """The stored key, whether in force or not. Raises Unauthenticated, RedisError."""
        key = parse(text)
        if key is None:
            raise Unauthenticated(
                "the API key is malformed: a character may be missing or mistyped"
            )
        record = await self._keys.find(key.id)
        if record is None or not self._keys.matches(record, key):
            raise Unauthenticated("the API key is not valid")
        return record
