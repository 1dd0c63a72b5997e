"""Turns tokens into text as they come: whole characters only, and nothing of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_CONTEXT_TOKENS = 5
"""Tokens before the answer that are decoded with it: a tokenizer may drop a leading space."""


class TextStream:
    """The text of one answer. ``take`` gives what may be delivered by now."""

    def __init__(
        self, decode: Callable[[list[int]], str], prompt: Sequence[int], stop: Sequence[str] = ()
    ) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        # The tokens of the last piece of text, then those that do not make text yet.
        self._window = list(prompt[-_CONTEXT_TOKENS:])
        self._known = len(self._window)
        self._known_text = decode(self._window)
        self._pending = ""
        self._held = 0
        self.stopped = False
        """Whether a stop text was met; no more tokens are wanted then."""

    def push(self, token: int) -> None:
        """Adds one token."""
        self._window.append(token)
        text = self._decode(self._window)
        # An unfinished UTF-8 sequence decodes to the replacement character: wait for its rest.
        if len(text) <= len(self._known_text) or text.endswith("\N{REPLACEMENT CHARACTER}"):
            return
        self._pending += text[len(self._known_text) :]
        self._window = self._window[self._known :]
        self._known = len(self._window)
        self._known_text = self._decode(self._window)
        if self._stop:
            self._look_for_stop()

    def take(self) -> str:
        """Text that is certain not to belong to a stop text; each part is given once."""
        ready = self._pending[: len(self._pending) - self._held]
        self._pending = self._pending[len(ready) :]
        return ready

    def finish(self) -> None:
        """Says that no token follows: what was held back is text after all."""
        self._held = 0

    @property
    def ready(self) -> bool:
        """Whether ``take`` would give anything."""
        return len(self._pending) > self._held

    def _look_for_stop(self) -> None:
        found = [at for at in map(self._pending.find, self._stop) if at >= 0]
        if found:
            self._pending = self._pending[: min(found)]
            self._held = 0
            self.stopped = True
            return
        self._held = max(_overlap(self._pending, stop) for stop in self._stop)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of ``stop`` that ``text`` ends with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
