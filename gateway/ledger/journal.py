"""The write-ahead file of a living source: one write a record, before the answer leaves.

What is written survives the end of the process, SIGKILL included; what is synced survives the loss
of power. ``sync`` runs every 100 ms, off the event loop. A write that fails is taken back, and from
then on every append is refused until the disk takes data again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from gateway.ledger.frames import RECORD, FileHeader, anchor, first_chain, frame, header
from gateway.ledger.sources import Source
from penstock.errors import DependencyUnavailable

log = logging.getLogger(__name__)

ENDED_TAG = b"\x0a"
"""How a serialized WriteAheadRecord begins that holds an ended call: field 1, length-delimited."""
_PROBE = bytes(64 * 1024)
"""A disk that takes this much again is used again."""
RETRY_SECONDS = 1.0


class Position(NamedTuple):
    """A place in a source's files."""

    number: int
    offset: int


@dataclass(frozen=True)
class Rotation:
    """When the next file begins."""

    max_bytes: int = 16 * 1024 * 1024
    max_seconds: float = 600.0


class Journal:
    """Appends records to a source's files; used from one event loop."""

    def __init__(self, source: Source, key: bytes, rotation: Rotation | None = None) -> None:
        """Opens the first file. Raises OSError."""
        self.ended = 0
        """How many ended calls are written: the sequence of the last."""
        self.number = 0
        """Of the file that is written now."""
        self._source = source
        self._key = key
        self._rotation = rotation or Rotation()
        self._chain = first_chain(source.name)
        self._descriptor = -1
        self._size = 0
        self._born = 0.0
        self._anchored_size = 0
        self._failure: OSError | None = None
        self._syncing = ThreadPoolExecutor(1, "ledger-sync")
        self._open_next()
        self.durable = Position(1, 0)
        """Everything before this survives a loss of power."""

    def check(self) -> None:
        """Raises DependencyUnavailable while nothing can be written."""
        if self._failure is not None:
            raise DependencyUnavailable(
                "usage cannot be recorded right now", retry_after_seconds=RETRY_SECONDS
            )

    def append(self, record: bytes) -> None:
        """Writes a serialized WriteAheadRecord. Raises DependencyUnavailable, and then it is not
        there."""
        self.check()
        data, chain = frame(self._chain, RECORD, record)
        try:
            self._write(data)
        except OSError as error:
            self._fail(error)
            self.check()
        self._chain = chain
        if record[:1] == ENDED_TAG:
            self.ended += 1

    async def sync(self) -> bool:
        """Anchors what was written and waits until it is on the disk; True if there was any."""
        try:
            if self._failure is not None:
                self._try_again()
            if self._size == self._anchored_size:
                return False
            data, chain = anchor(self._key, self._chain)
            self._write(data)
            self._chain, self._anchored_size = chain, self._size
            await self._make_durable()
        except OSError as error:
            self._fail(error)
            return False
        return True

    async def close(self) -> None:
        """Syncs and closes the file."""
        await self.sync()
        self._syncing.shutdown()
        os.close(self._descriptor)
        self._descriptor = -1

    async def _make_durable(self) -> None:
        before, reached = self._descriptor, Position(self.number, self._size)
        # Chosen before the wait, so that what is written meanwhile goes to the next file.
        full = self._size >= self._rotation.max_bytes
        rotated = (full or time.monotonic() > self._born + self._rotation.max_seconds) and (
            self._rotate()
        )
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._syncing, os.fdatasync, before)
            if rotated:
                await loop.run_in_executor(self._syncing, self._source.sync)
        finally:
            if rotated:
                os.close(before)
        self.durable = reached

    def _rotate(self) -> bool:
        try:
            self._open_next()
        except OSError as error:
            log.warning("no new write-ahead file; the old one grows", extra={"cause": str(error)})
            return False
        return True

    def _open_next(self) -> None:
        number = self.number + 1
        path = self._source.path(number)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        data, chain = header(FileHeader(number, self.ended, self._chain))
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError("the write-ahead file's header was cut short")
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        self._descriptor, self.number, self._chain = descriptor, number, chain
        self._size = self._anchored_size = len(data)
        self._born = time.monotonic()

    def _write(self, data: bytes) -> None:
        if os.write(self._descriptor, data) != len(data):
            raise OSError("the disk took a part only")
        self._size += len(data)

    def _fail(self, error: OSError) -> None:
        if self._failure is None:
            log.critical("usage cannot be recorded", extra={"cause": str(error)})
        self._failure = error
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._size)

    def _try_again(self) -> None:
        """Raises OSError while the disk takes nothing."""
        os.ftruncate(self._descriptor, self._size)
        try:
            if os.write(self._descriptor, _PROBE) != len(_PROBE):
                raise OSError("the disk took a part only")
        finally:
            os.ftruncate(self._descriptor, self._size)
        self._failure = None
        log.warning("usage is recorded again")
