"""A rate: one gateway's leased pieces of a bucket that all gateways share.

The bucket (scripts/lease_units.lua) holds C units and refills by r = C/60 s. A lease is a debit.
Let L be the bucket's level, and U what all holders could still use of their pieces. The script
keeps L + R <= C, where R is the sum of what it has recorded of the pieces.

* R >= U. A piece is recorded as granted; only its holder's reports lower the record, to what the
  holder has left at that moment, and that never grows again. The record ends TTL after the grant;
  the holder stops TTL after it asked, which is earlier. So L + U <= C.
* L + U grows by the refill only, by r a second at most. A grant, and what a holder gives back, move
  units between L and U: the holder first ceases to use them, then says so; the script adds no more
  than is still recorded, and counts a repeated or late report once, for reports carry totals.
* Each unit admitted takes one from U.

So in any window of t seconds, admitted <= (L + U at its beginning) + r t <= C + r t, whoever is
killed and whichever question or answer is lost. After a loss of the soft Redis (emptied, or started
again: soft_birth.lua) the holders may use what they have for one TTL; the bucket starts empty, and
starts to refill when that time is over.

A reservation is part of its piece until it is settled; what is then left goes back to the piece,
while that lives. Reserved and never settled, or settled too late, is lost, never used twice. A call
that uses more than it reserved leaves a debt, which the next piece pays.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from typing import Any

from gateway.limits.desk import PATIENCE_SECONDS, Desk
from gateway.limits.pieces import Hold, Piece, Waiter
from gateway.limits.scripts import ALL, Question, Report, Wish, lease_units, read_units
from penstock.errors import DependencyUnavailable, RateLimited

LEASE_SECONDS = 10.0
"""How long a leased piece may be used (TTL)."""
IDLE_SECONDS = 1.0
"""A bucket that was not used for longer gives everything back."""
REPORT_SECONDS = 0.5
"""What was used is reported after this time at the latest."""
_LEASE_SHARE = 0.02
_LEASE_TRAFFIC_SECONDS = 0.5
_LARGEST_SHARE = 0.25
_ENDING_SECONDS = 1.5
_BELIEF_SECONDS = 1.0
"""For so long the last answer is believed without asking again."""

_numbers = itertools.count(1)


class Bucket:
    """One rate of one subject, as this gateway has it."""

    def __init__(self, kind: str, subject: str, limit: int, desk: Desk, source: str) -> None:
        self.kind = kind
        """``requests`` or ``units``."""
        self.subject = subject
        self.limit = limit
        """Units a minute."""
        self._desk = desk
        self._source = source
        self._pieces: deque[Piece] = deque()
        self._lost: dict[int, float] = {}
        self._free = 0
        self._until = math.inf
        self._debt = 0
        self._low = 1
        self._asking = False
        self._number = 0
        self._reported: list[Report] = []
        self._changed = False
        self._waiting: list[Waiter] = []
        self._asked_for: list[Waiter] = []
        self._refill_at = 0.0
        self._last_used = self._last_asked = -math.inf
        self._taken = self._missed = 0
        self._speed = 0.0
        self._level, self._level_at = 0.0, -math.inf

    # What calls do

    def has(self, units: int, now: float) -> bool:
        """Whether so much can be used without asking Redis."""
        if now >= self._until:
            self._drop_ended(now)
        return self._free >= units

    def take(self, units: int, now: float) -> None:
        """Uses units for good; ``has`` has just said that they are there."""
        piece = self._pieces[0]
        if piece.free >= units:
            piece.free -= units
        else:
            self._take_across(units)
        self._used(units, now)

    def hold(self, units: int, now: float) -> Hold:
        """Reserves units; ``has`` has just said that they are there."""
        hold, left = Hold(self), units
        for piece in self._pieces:
            part = min(piece.free, left)
            if part:
                hold.add(piece, part)
                left -= part
                if not left:
                    break
        self._used(units, now)
        return hold

    def want(self, units: int, now: float) -> None:
        """Has so much asked for, though no call waits for it."""
        self._missed, self._last_used = units, now
        self._desk.ask(self)

    async def acquire(self, units: int) -> Hold:
        """Reserves units, and asks Redis for them.

        Raises RateLimited, and DependencyUnavailable when Redis does not answer in time.
        """
        now = time.monotonic()
        if self.has(units, now):
            return self.hold(units, now)
        self._refuse_hopeless(units, now)
        if self._desk.broken:
            # The answer still comes, for a later call.
            self.want(units, now)
            raise _unchecked()
        waiter, self._last_used = Waiter(units), now
        self._waiting.append(waiter)
        self._desk.ask(self, urgent=True)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await waiter.future
        except BaseException as error:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().settle(0, time.monotonic())
            if isinstance(error, TimeoutError):
                self._desk.trip()
                raise _unchecked() from None
            raise

    def give(self, piece: Piece, units: int, now: float) -> None:
        """Takes back what a call had reserved of a piece and did not use."""
        piece.reserved -= units
        if now < piece.until:
            piece.free += units
            self._free += units
            self._pay()
        self._changed = True

    def spend(self, parts: list[tuple[Piece, int]], beyond: int) -> None:
        """Counts what calls had reserved as used, and what they used beyond that as a debt."""
        for piece, units in parts:
            piece.reserved -= units
        if beyond > 0:
            self._debt += beyond
            self._pay()
        self._changed = True
        self._desk.watch(self)

    def remaining(self, now: float) -> tuple[int, float]:
        """About how much is left now, and the seconds until all of it is there again."""
        rate = self.limit / 60.0
        level = self._level + rate * (now - self._level_at) if self._level_at > 0 else self.limit
        left = max(0.0, min(float(self.limit), level + self._free))
        return int(left), (self.limit - left) / rate if rate else 0.0

    # What the desk asks

    def due(self, now: float) -> bool | None:
        """Whether there is something to report, to give back or to ask for again."""
        if now >= self._until:
            self._drop_ended(now)
        if self._asking:
            return False
        if self._lost or self._waiting:
            return True
        if self._changed:
            return now - self._last_asked >= REPORT_SECONDS
        if not self._pieces:
            return None if now - self._last_used > LEASE_SECONDS else False
        idle = now - self._last_used > IDLE_SECONDS
        return self._free > 0 and (idle or self._until - now < _ENDING_SECONDS)

    def question(self, now: float) -> Question | None:
        """Asks for what calls wait for and some in advance, and reports earlier pieces."""
        if now >= self._until:
            self._drop_ended(now)
        self._serve(self._waiting, now)
        self._waiting = [waiter for waiter in self._waiting if not waiter.future.done()]
        wish = self._wish(now)
        self._give_back_some(now)
        self._reported = [
            *(Report(p.number, p.free + p.reserved, p.given) for p in self._pieces),
            *(Report(number, 0, ALL) for number in self._lost),
        ]
        if not wish.wanted and not self._reported:
            self._changed = self._asking = False
            return None
        self._asked_for, self._waiting = self._waiting, []
        self._asking, self._changed = True, False
        self._last_asked = now
        self._number = next(_numbers)
        piece = (self._source, self._number)
        bucket = (self.kind, self.subject)
        return lease_units(bucket, self.limit, piece, LEASE_SECONDS, wish, self._reported)

    def answered(self, answer: Any, asked: float, now: float) -> None:
        """Takes in a new piece, forgets what was reported, and serves or refuses who waits."""
        granted, self._level, _ = read_units(answer)
        self._asking, self._level_at = False, asked
        done = {report.piece for report in self._reported if report.unspent == 0}
        self._pieces = deque(piece for piece in self._pieces if piece.number not in done)
        for number in done:
            self._lost.pop(number, None)
        if granted:
            self._free += granted
            self._pieces.append(Piece(self._number, granted, asked + LEASE_SECONDS))
        self._until = min((piece.until for piece in self._pieces), default=math.inf)
        if now >= self._until:
            self._drop_ended(now)
        self._pay()
        if self._free < self._low:
            self._refill_at = now + max(0.05, min(1.0, 60.0 / max(1, self.limit)))
        self._serve(self._asked_for, now)
        for waiter in self._asked_for:
            if not waiter.future.done():
                waiter.future.set_exception(self._refusal(waiter.units, now))
        self._asked_for = []
        self._serve(self._waiting, now)
        if any(not waiter.future.done() for waiter in self._waiting):
            self._desk.ask(self, urgent=True)

    def unanswered(self, asked: float, now: float) -> None:
        """Remembers the piece that may have been granted, to give it back."""
        self._asking, self._changed = False, True
        self._lost[self._number] = asked
        for number in [n for n, since in self._lost.items() if now - since > 2 * LEASE_SECONDS]:
            del self._lost[number]
        for waiter in (*self._asked_for, *self._waiting):
            if not waiter.future.done():
                waiter.future.set_exception(_unchecked())
        self._asked_for, self._waiting = [], []

    def close(self) -> None:
        """Wants everything given back with the next question."""
        self._last_used = -math.inf

    # How it is done

    def _used(self, units: int, now: float) -> None:
        self._free -= units
        self._taken += units
        self._last_used = now
        self._changed = True
        if self._free < self._low and now >= self._refill_at and not self._asking:
            self._asking = True
            self._desk.ask(self)
        else:
            self._desk.watch(self)

    def _pay(self) -> None:
        paid = min(self._debt, self._free)
        if paid:
            self._debt -= paid
            self._free -= paid
            self._take_across(paid)
            self._changed = True

    def _take_across(self, units: int) -> None:
        for piece in self._pieces:
            part = min(piece.free, units)
            piece.free -= part
            units -= part
            if not units:
                return

    def _drop_ended(self, now: float) -> None:
        kept: deque[Piece] = deque()
        for piece in self._pieces:
            if now < piece.until:
                kept.append(piece)
            else:
                self._free -= piece.free
                piece.free = 0
        self._pieces = kept
        self._until = min((piece.until for piece in kept), default=math.inf)

    def _wish(self, now: float) -> Wish:
        calls = [waiter.units for waiter in self._waiting] or [self._missed][: self._missed]
        self._missed = 0
        elapsed = now - self._last_asked
        if elapsed > 0.05:
            self._speed = (self._speed + min(self._taken / elapsed, self.limit)) / 2
            self._taken = 0
        size = max(self.limit * _LEASE_SHARE, self._speed * _LEASE_TRAFFIC_SECONDS)
        size = max(1, math.ceil(min(size, self.limit * _LARGEST_SHARE)))
        self._low = max(1, size // 2)
        busy = now - self._last_used < IDLE_SECONDS
        spare = size if busy and self._free < self._low else 0
        needed = max(0, sum(calls) + self._debt - self._free)
        least = max(0, min(calls, default=0) + self._debt - self._free)
        return Wish(least, needed, needed + spare)

    def _give_back_some(self, now: float) -> None:
        idle = now - self._last_used > IDLE_SECONDS and not self._waiting
        for piece in self._pieces:
            if piece.free and (idle or piece.until - now < _ENDING_SECONDS):
                piece.given += piece.free
                self._free -= piece.free
                piece.free = 0

    def _serve(self, waiters: list[Waiter], now: float) -> None:
        for waiter in waiters:
            if not waiter.future.done() and self.has(waiter.units, now):
                waiter.future.set_result(self.hold(waiter.units, now))

    def _missing(self, units: int, now: float) -> float:
        """By how much more than everything that could be there now the units are."""
        level = self._level + self.limit / 60.0 * (now - self._level_at)
        return units + self._debt - self._free - min(level, self.limit)

    def _refuse_hopeless(self, units: int, now: float) -> None:
        if units > self.limit:
            text = f"{self.limit:,} {self.kind} a minute, and the call needs up to {units:,}"
            raise RateLimited(text, None, self.subject)
        if now - self._level_at < _BELIEF_SECONDS and self._missing(units, now) > 0:
            raise self._refusal(units, now)

    def _refusal(self, units: int, now: float) -> RateLimited:
        wait = max(0.001, self._missing(units, now) * 60.0 / self.limit)
        return RateLimited(f"{self.limit:,} {self.kind} a minute", wait, self.subject)


def _unchecked() -> DependencyUnavailable:
    return DependencyUnavailable("limits cannot be checked right now", retry_after_seconds=1.0)
