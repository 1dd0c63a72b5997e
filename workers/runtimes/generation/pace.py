"""How often a running sequence sends a message, given what a message costs.

Sending takes the engine's own time: some 0.2 ms a message through Triton, which at 16 sequences and
a message a token would be a third of a small model's step. So messages take about a fixed share of
the time, and a message carries several tokens when there are many sequences. One sequence alone
holds up nobody else and sends every token.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SHARE = 0.15
"""About how much of the time sending may take."""
_MEMORY = 0.98
"""Weight of what was measured before against the newest message."""


class Pace:
    """Measures messages and spreads them out."""

    def __init__(self) -> None:
        self._message_seconds = 0.0

    def interval(self, sequences: int) -> float:
        """Seconds between two messages of one sequence when this many are running."""
        return (sequences - 1) * self._message_seconds / _SHARE

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Measures one message."""
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self._message_seconds = _MEMORY * self._message_seconds + (1 - _MEMORY) * spent
