"""A checked credential is trusted for a moment, so that calls need no look-up."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from redis.exceptions import RedisError

from penstock.errors import DependencyUnavailable, PenstockError, TenantSuspended, Unauthenticated

log = logging.getLogger(__name__)

T = TypeVar("T")

FRESH_SECONDS = 2.0
"""After this a credential is checked again, in the background."""
TRUST_SECONDS = 4.0
"""After this a call waits for the check, so a revoked key is refused within 5 s everywhere."""
OUTAGE_TRUST_SECONDS = 60.0
"""How long checked credentials stay trusted while Redis cannot be reached."""
MOST_CREDENTIALS = 10_000

NEVER = math.inf
Check = Callable[[], Awaitable[tuple[T, float]]]
"""Looks a credential up: what it stands for, and when that ends in Unix seconds, or NEVER."""


@dataclass(slots=True, eq=False)
class _Checked(Generic[T]):
    value: T
    at: float
    until: float
    """Of time.monotonic(), as ``at``."""


class Trust(Generic[T]):
    """What credentials stand for, by fingerprint; the one used longest ago is forgotten first."""

    def __init__(self) -> None:
        self._checked: OrderedDict[bytes, _Checked[T]] = OrderedDict()
        self._checking: dict[bytes, asyncio.Task[T]] = {}

    def fresh(self, fingerprint: bytes) -> T | None:
        """What the credential stands for, if that was checked a moment ago."""
        checked = self._checked.get(fingerprint)
        if checked is not None:
            now = time.monotonic()
            if now - checked.at < FRESH_SECONDS and now < checked.until:
                return checked.value
        return None

    async def resolve(self, fingerprint: bytes, check: Check[T]) -> T:
        """What the credential stands for, checked if need be; callers at once share one check.

        Raises DependencyUnavailable and whatever ``check`` raises but RedisError.
        """
        checked = self._checked.get(fingerprint)
        if checked is not None:
            now = time.monotonic()
            if now < checked.until and now - checked.at < TRUST_SECONDS:
                if now - checked.at >= FRESH_SECONDS:
                    self._begin(fingerprint, check)
                return checked.value
        # Shielded: the others wait for the same check, whoever of them gives up.
        return await asyncio.shield(self._begin(fingerprint, check))

    def _begin(self, fingerprint: bytes, check: Check[T]) -> asyncio.Task[T]:
        task = self._checking.get(fingerprint)
        if task is None:
            task = asyncio.create_task(self._check(fingerprint, check))
            self._checking[fingerprint] = task
            task.add_done_callback(lambda done: self._ended(fingerprint, done))
        return task

    def _ended(self, fingerprint: bytes, task: asyncio.Task[T]) -> None:
        self._checking.pop(fingerprint, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, PenstockError):
            log.error("a credential could not be checked", exc_info=error)

    async def _check(self, fingerprint: bytes, check: Check[T]) -> T:
        # Counted from before the look-up: what it reads may be outdated when it comes.
        at = time.monotonic()
        try:
            value, ends = await check()
        except RedisError as error:
            known = self._checked.get(fingerprint)
            if known is not None and at - known.at < OUTAGE_TRUST_SECONDS and at < known.until:
                return known.value
            raise DependencyUnavailable(
                "credentials cannot be checked right now", retry_after_seconds=1.0
            ) from error
        except (Unauthenticated, TenantSuspended):
            if self._checked.pop(fingerprint, None) is not None:
                log.info("a credential in use is no longer valid")
            raise
        return self._remember(fingerprint, value, at, at + ends - time.time())

    def _remember(self, fingerprint: bytes, value: T, at: float, until: float) -> T:
        known = self._checked.get(fingerprint)
        if known is not None and known.value == value:
            # The same object for as long as nothing changes, so that it can key caches.
            value = known.value
        self._checked[fingerprint] = _Checked(value, at, until)
        self._checked.move_to_end(fingerprint)
        if len(self._checked) > MOST_CREDENTIALS:
            self._checked.popitem(last=False)
        return value
