"""Iteration-level batching: one thread runs all sequences together, a token each at every step.

A step: see who is cancelled, drop them; admit from a bounded waiting line into free rows; read some
of the prompts; compute one token for every running sequence; send. That thread owns the model and
every caller, so nothing here is locked but the inbox.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from workers.runtimes.generation.language_model import LanguageModel
from workers.runtimes.generation.pace import Pace
from workers.runtimes.generation.sampling import choose
from workers.runtimes.generation.sequence import Sequence

_log = logging.getLogger(__name__)

_PUBLISH_SECONDS = 0.25
_SWEEP_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the engine takes on."""

    max_sequences: int
    """Sequences side by side."""
    max_waiting: int
    """Sequences in line for a row; more are refused."""
    prefill_tokens: int = 512
    """Prompt tokens read in one step, so that a long prompt does not hold up those who run."""


@dataclass(slots=True)
class Counts:
    """What the engine has done since it started, and what it is doing."""

    steps: int = 0
    tokens: int = 0
    """Answer tokens computed."""
    prompt_tokens: int = 0
    running: int = 0
    """Sequences that hold a row."""
    waiting: int = 0


class Figures(Protocol):
    """Where the counts are shown."""

    def publish(self, counts: Counts) -> None:
        """Shows these counts; called by the engine's thread, a few times a second."""


class Engine:
    """Runs sequences from ``submit`` to their last message."""

    def __init__(self, model: LanguageModel, limits: Limits, figures: Figures) -> None:
        self._model = model
        self._limits = limits
        self._figures = figures
        self._counts = Counts()
        self._published = 0.0
        self._swept = 0.0
        self._pace = Pace()
        self._arrival = threading.Condition()
        self._inbox: deque[Sequence] = deque()
        self._closing = False
        self._waiting: deque[Sequence] = deque()
        # In row order: first those that generate, then those whose prompts are still being read.
        self._rows: list[Sequence] = []
        self._generating = 0
        self._thread = threading.Thread(target=self._run, name="generation-engine", daemon=True)

    def start(self) -> None:
        """Starts the engine's thread."""
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Hands a sequence over; never blocks. The answer goes to its caller, errors included."""
        with self._arrival:
            self._inbox.append(sequence)
            self._arrival.notify()

    def close(self) -> None:
        """Ends every open answer with an error and waits for the thread."""
        with self._arrival:
            self._closing = True
            self._arrival.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._take_in():
            try:
                self._step()
            except Exception:
                _log.exception("a generation step failed; its sequences end with an error")
                self._fail_all("INTERNAL", "the model failed")
        self._fail_all("UNAVAILABLE", "the model is being unloaded")

    def _take_in(self) -> bool:
        """Empties the inbox, waiting for it when there is nothing else to do; False: shut down."""
        with self._arrival:
            while not (self._inbox or self._waiting or self._rows or self._closing):
                self._arrival.wait()
            arrived = list(self._inbox)
            self._inbox.clear()
        room = self._limits.max_waiting + self._limits.max_sequences - len(self._rows)
        for sequence in arrived:
            if len(self._waiting) < room:
                self._waiting.append(sequence)
            else:
                sequence.caller.fail(
                    "OVERLOADED", "too many generations are waiting for this model"
                )
        return not self._closing

    def _step(self) -> None:
        self._counts.steps += 1
        self._drop()
        self._admit()
        if len(self._rows) > self._generating:
            self._read_prompts()
        if self._generating:
            self._generate()
        idle = not (self._rows or self._waiting)
        if idle or time.monotonic() - self._published > _PUBLISH_SECONDS:
            self._publish()

    def _drop(self) -> None:
        """Lets go of those whose callers left or whose time is up.

        Asking costs some 0.1 ms through Triton, so a row is asked at every second step only and the
        line now and then.
        """
        now = time.monotonic()
        for row in reversed(range(self._counts.steps % 2, len(self._rows), 2)):
            if _gone(self._rows[row], now):
                self._leave(row)
        if self._waiting and now - self._swept > _SWEEP_SECONDS:
            self._waiting = deque(waiting for waiting in self._waiting if not _gone(waiting, now))
            self._swept = time.monotonic()

    def _admit(self) -> None:
        """Gives free rows to the next in line, as many as one step may read; a long one alone."""
        if len(self._rows) > self._generating:
            return
        longest = 0
        while self._waiting and len(self._rows) < self._limits.max_sequences:
            if _gone(self._waiting[0], time.monotonic()):
                self._waiting.popleft()
                continue
            longest = max(longest, len(self._waiting[0].prompt))
            joining = len(self._rows) - self._generating + 1
            if joining > 1 and joining * longest > self._limits.prefill_tokens:
                break
            self._rows.append(self._waiting.popleft())

    def _read_prompts(self) -> None:
        """Reads the prompts of those who join, or the next piece of a long one."""
        joining = self._rows[self._generating :]
        pieces = [
            sequence.prompt[sequence.cached : sequence.cached + self._limits.prefill_tokens]
            for sequence in joining
        ]
        starts = [sequence.cached for sequence in joining]
        logits = self._model.forward(self._generating, pieces, starts)
        self._counts.prompt_tokens += sum(map(len, pieces))
        for sequence, piece in zip(joining, pieces, strict=True):
            sequence.cached += len(piece)
        if joining[-1].cached == len(joining[-1].prompt):
            first_row = self._generating
            self._generating = len(self._rows)
            self._accept(first_row, _next_tokens(logits, joining))

    def _generate(self) -> None:
        """Computes one more token for every running sequence."""
        running = self._rows[: self._generating]
        tokens = [[sequence.last_token] for sequence in running]
        logits = self._model.forward(0, tokens, [sequence.cached for sequence in running])
        for sequence in running:
            sequence.cached += 1
        self._accept(0, _next_tokens(logits, running))

    def _accept(self, first_row: int, tokens: list[int]) -> None:
        """Gives the rows from ``first_row`` on their next tokens, and sends what is due."""
        self._counts.tokens += len(tokens)
        finished = []
        interval = self._pace.interval(self._generating)
        for row, token in enumerate(tokens, first_row):
            sequence = self._rows[row]
            sequence.push(token)
            if sequence.finish_reason:
                finished.append(row)
            elif not self._due(sequence, interval):
                continue
            with self._pace.sending():
                sequence.send()
        for row in reversed(finished):
            self._leave(row)

    @staticmethod
    def _due(sequence: Sequence, interval: float) -> bool:
        ready = sequence.streaming and sequence.text.ready
        return ready and time.monotonic() - sequence.sent_at >= interval

    def _leave(self, row: int) -> None:
        """Frees a row by moving the last one of its kind into it."""
        if row < self._generating:
            self._generating -= 1
            self._move(self._generating, row)
            row = self._generating
        self._move(len(self._rows) - 1, row)
        self._rows.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            sequence = self._rows[source]
            self._model.move(source, target, sequence.cached)
            self._rows[target] = sequence

    def _publish(self) -> None:
        self._counts.running = len(self._rows)
        self._counts.waiting = len(self._waiting)
        self._figures.publish(self._counts)
        self._published = time.monotonic()

    def _fail_all(self, reason: str, message: str) -> None:
        for sequence in (*self._rows, *self._waiting):
            sequence.caller.fail(reason, message)
        self._rows.clear()
        self._waiting.clear()
        self._generating = 0
        self._model.reset()


def _next_tokens(logits: Tensor, sequences: list[Sequence]) -> list[int]:
    parameters = [sequence.parameters for sequence in sequences]
    return choose(logits, parameters, [sequence.dice for sequence in sequences])


def _gone(sequence: Sequence, now: float) -> bool:
    if sequence.caller.is_cancelled():
        sequence.caller.close()
        return True
    if now >= sequence.expires:
        sequence.caller.fail("DEADLINE_EXCEEDED", "the deadline passed")
        return True
    return False
