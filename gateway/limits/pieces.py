"""Leased units: the pieces of a bucket that a gateway has, and what calls hold of them."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Lessor(Protocol):
    """Whose pieces they are."""

    def give(self, piece: Piece, units: int, now: float) -> None:
        """Takes back what a call had reserved of a piece and did not use."""

    def spend(self, parts: list[tuple[Piece, int]], beyond: int) -> None:
        """Counts what calls had reserved as used, and what they used beyond that as a debt."""


class Piece:
    """Units that were leased together. Times are of ``time.monotonic()``."""

    __slots__ = ("free", "given", "number", "reserved", "until")

    def __init__(self, number: int, free: int, until: float) -> None:
        self.number = number
        self.free = free
        self.reserved = 0
        self.given = 0
        self.until = until


class Waiter:
    """A call that waits for units."""

    __slots__ = ("future", "units")

    def __init__(self, units: int) -> None:
        self.units = units
        self.future: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()


class Hold:
    """What a call has reserved of one bucket."""

    __slots__ = ("_bucket", "_parts", "units")

    def __init__(self, bucket: Lessor) -> None:
        self._bucket = bucket
        self._parts: list[tuple[Piece, int]] = []
        self.units = 0

    def add(self, piece: Piece, units: int) -> None:
        """Takes from the piece; the piece has as much."""
        piece.free -= units
        piece.reserved += units
        self._parts.append((piece, units))
        self.units += units

    def join(self, other: Hold) -> None:
        """Takes over what another hold has."""
        self._parts += other._parts
        self.units += other.units

    def release(self, units: int, now: float) -> None:
        """Gives up some of what is reserved, unused."""
        parts = self._parts
        while units > 0 and parts:
            piece, reserved = parts.pop()
            back = min(reserved, units)
            units -= back
            self.units -= back
            self._bucket.give(piece, back, now)
            if back < reserved:
                parts.append((piece, reserved - back))

    def settle(self, used: int, now: float) -> None:
        """Ends the reservation: ``used`` units of it were used, or more than it has."""
        self.release(self.units - used, now)
        self._bucket.spend(self._parts, used - self.units)
        self._parts, self.units = [], 0
