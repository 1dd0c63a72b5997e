"""Where the two chains end, as the control Redis knows it: the anchor of every verification.

LEDGER_HEADS holds each ledger's last link as its file has it, and ``sealed_until``: the Unix time
when the last segment was sealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from penstock.service import keys
from penstock.service.ledger.links import Ledger, Link, decode_link


@dataclass(frozen=True, slots=True)
class Heads:
    """The last links of both chains; None while nothing is sealed."""

    audit: Link | None = None
    usage: Link | None = None
    sealed_until: float = 0.0

    def of(self, ledger: Ledger) -> Link | None:
        """One ledger's."""
        return self.audit if ledger == "audit" else self.usage


async def read_heads(control: Redis, key: bytes) -> Heads:
    """The heads now. Raises LinkBroken if somebody changed them, and RedisError."""
    stored: Mapping[bytes, bytes] = await _answer(control.hgetall(keys.LEDGER_HEADS))
    return Heads(
        _link(stored.get(b"audit"), key),
        _link(stored.get(b"usage"), key),
        float(stored.get(b"sealed_until", 0)),
    )


def _link(data: bytes | None, key: bytes) -> Link | None:
    return None if data is None else decode_link(data, key)


async def _answer(result: Any) -> Any:
    """redis-py types its commands as both plain and awaitable."""
    return await result
