"""When a call that failed is tried again, where gRPC's own retries would repeat a signature."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable

import grpc

MOST_ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
MOST_TOKENS = 200.0
TOKENS_PER_SUCCESS = 0.1

_REPEATED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_PUSHBACK = "grpc-retry-pushback-ms"


class Attempts:
    """The rules of channels.SERVICE_CONFIG, as gRPC's design A6 describes them; for all calls of a
    channel together."""

    def __init__(self) -> None:
        self._tokens = MOST_TOKENS
        self._lock = threading.Lock()

    def pause_after(
        self,
        attempt: int,
        code: grpc.StatusCode | None,
        trailing: Iterable[tuple[str, str | bytes]] | None,
    ) -> float | None:
        """Seconds until the next attempt, given how the one of that number ended; None: no more."""
        with self._lock:
            if code not in _REPEATED:
                self._tokens = min(MOST_TOKENS, self._tokens + TOKENS_PER_SUCCESS)
                return None
            self._tokens = max(0.0, self._tokens - 1.0)
            if attempt >= MOST_ATTEMPTS or self._tokens <= MOST_TOKENS / 2:
                return None
        pushback = dict(trailing or ()).get(_PUSHBACK)
        if pushback is not None:
            text = pushback if isinstance(pushback, str) else ""
            return int(text) / 1000 if text.isdecimal() else None
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1))
        return pause * random.uniform(0.8, 1.2)  # noqa: S311
