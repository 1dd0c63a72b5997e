"""Reads a source's write-ahead files back, in order, and proves on the way that they are whole."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.ledger.frames import (
    ANCHOR,
    HEADER,
    Frame,
    anchor_follows,
    anchor_of,
    first_chain,
    next_chain,
    read_frame,
    read_header,
)
from gateway.ledger.journal import ENDED_TAG, Position
from gateway.ledger.sources import Source

_CHUNK_BYTES = 1024 * 1024


class JournalTampered(Exception):
    """A file is not as it was written: changed, cut where it was whole, or in part missing."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(f"{path}, byte {offset}: {what}")


class Record(NamedTuple):
    """A WriteAheadRecord as it was written."""

    sequence: int
    """Of an ended call; 0 for everything else."""
    payload: bytes


class JournalReader:
    """Reads on from where it stopped.

    Verified: checksums, the chain over all files that are left, and every anchor. The bytes behind
    the last anchor of a dead source may be torn: what is not whole there is left out.
    """

    def __init__(self, source: Source, key: bytes) -> None:
        self.ended = 0
        """How many ended calls there are up to here, those in files that are gone included."""
        self._source = source
        self._key = key
        self._chain = first_chain(source.name)
        self._at = Position(0, 0)
        self._first = True

    def read(self, until: Position | None) -> Iterator[Record]:
        """The records up to there; None reads a dead source to its end. Raises JournalTampered.

        May be left at any time; the next call goes on behind the last record that came out.
        """
        while (number := self._next_file(until)) is not None:
            path = self._source.path(number)
            size = path.stat().st_size
            end = size if until is None or number < until.number else until.offset
            yield from self._read_file(path, min(end, size), whole=until is None)
            if self._at.offset < end:
                return

    def _next_file(self, until: Position | None) -> int | None:
        """The file to read from, moving to the next where the present one is read to its end."""
        number, offset = self._at
        if number == 0:
            files = self._source.files()
            if files:
                self._at = Position(files[0][0], 0)
            return files[0][0] if files else None
        last = until is not None and number >= until.number
        if offset < (until.offset if last and until else self._source.path(number).stat().st_size):
            return number
        if last:
            return None
        if not self._source.path(number + 1).exists():
            if any(later > number for later, _ in self._source.files()):
                raise JournalTampered(self._source.path(number + 1), 0, "the file is missing")
            return None
        self._at = Position(number + 1, 0)
        return number + 1

    def _read_file(self, path: Path, end: int, *, whole: bool) -> Iterator[Record]:
        with path.open("rb") as file:
            while self._at.offset < end:
                start = self._at.offset
                file.seek(start)
                wanted = min(_CHUNK_BYTES, end - start)
                yield from self._read_chunk(path, file.read(wanted))
                if self._at.offset == start:
                    file.seek(start)
                    rest = file.read(end - start)
                    yield from self._read_chunk(path, rest)
                if self._at.offset == start:
                    self._check_torn(path, rest, whole)
                    return

    def _read_chunk(self, path: Path, data: bytes) -> Iterator[Record]:
        number, start = self._at
        offset = 0
        while (found := read_frame(data, offset)) is not None:
            self._verify(path, start + offset, found)
            offset += found.size
            self._at, self._chain = Position(number, start + offset), found.chain
            if found.kind in (HEADER, ANCHOR):
                continue
            ended = found.payload[:1] == ENDED_TAG
            self.ended += ended
            yield Record(self.ended if ended else 0, found.payload)

    def _verify(self, path: Path, offset: int, found: Frame) -> None:
        if (found.kind == HEADER) != (offset == 0):
            raise JournalTampered(path, offset, "a header only begins a file")
        if found.kind == HEADER:
            self._enter(path, found.payload)
        if next_chain(self._chain, found.kind, found.payload) != found.chain:
            raise JournalTampered(path, offset, "the chain does not fit")
        if found.kind == ANCHOR and not hmac.compare_digest(
            found.payload, anchor_of(self._key, self._chain)
        ):
            raise JournalTampered(path, offset, "the anchor is not ours")

    def _enter(self, path: Path, payload: bytes) -> None:
        given = read_header(payload)
        if given is None or given.number != self._at.number:
            raise JournalTampered(path, 0, "it is not the file that its name says")
        if self._first and given.number > 1:
            # The files before it are sealed and gone; the next anchor vouches for what it says.
            self._chain, self.ended = given.chain_before, given.ended_before
        if (given.chain_before, given.ended_before) != (self._chain, self.ended):
            raise JournalTampered(path, 0, "it does not continue the file before")
        self._first = False

    def _check_torn(self, path: Path, rest: bytes, whole: bool) -> None:
        later = (file.read_bytes() for n, file in self._source.files() if n > self._at.number)
        # A file's first anchor is written when the file before is on the disk as a whole.
        if not whole or any(anchor_follows(data, 0) for data in (rest, *later)):
            raise JournalTampered(path, self._at.offset, "bytes are missing or changed")
