"""What becomes of files: a dead gateway's are shipped by a living one, and sealed ones go.

A file lives until all its events are in a sealed segment, and, while its source lives, until no
open stream began in it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from itertools import pairwise
from pathlib import Path

from gateway.ledger.frames import read_frame, read_header
from gateway.ledger.reading import JournalTampered
from gateway.ledger.shipment import MarkMisplaced, Shipment
from gateway.ledger.sources import Source, sources
from gateway.ledger.store import LedgerStore

log = logging.getLogger(__name__)

_HEADER_BYTES = 256
"""More than a header's frame has."""


class Adoption:
    """Looks after the files of sources that have ended; holds their locks meanwhile."""

    def __init__(self, ledger_dir: Path, store: LedgerStore, key: bytes) -> None:
        self._ledger_dir = ledger_dir
        self._store = store
        self._key = key
        self._shipping: dict[str, tuple[Source, Shipment]] = {}
        self._closed: dict[str, tuple[Source, int]] = {}
        self._given_up: set[str] = set()

    async def run_once(self) -> None:
        """Goes on with every dead source that is there. Raises RedisError, OSError."""
        for name in sources(self._ledger_dir):
            if name not in self._closed and name not in self._given_up:
                await self._adopt(name)
        for name, (source, last) in list(self._closed.items()):
            if last <= 0 or await self._store.sealed(name) >= last:
                for _, path in source.files():
                    path.unlink(missing_ok=True)
                await self._store.forget(name)
                del self._closed[name]
                source.remove()

    def release(self) -> None:
        """Gives the locks up; another gateway goes on."""
        for source, _ in (*self._shipping.values(), *self._closed.values()):
            source.release()
        self._shipping.clear()
        self._closed.clear()

    async def _adopt(self, name: str) -> None:
        if name not in self._shipping:
            source = Source.take(self._ledger_dir, name)
            if source is None:
                return
            await asyncio.to_thread(_sync_all, source)
            self._shipping[name] = source, Shipment(self._store, source, self._key, dead=True)
        source, shipment = self._shipping[name]
        try:
            if source.files():
                await shipment.ship(None)
            await self._store.close(name)
        except (JournalTampered, MarkMisplaced) as error:
            # The files stay as they are, and the lock with this process: somebody must look.
            log.critical(
                "a dead gateway's events cannot be shipped",
                extra={"source": name, "cause": str(error)},
            )
            self._given_up.add(name)
            return
        if shipment.sent:
            told = {"source": name, "events": shipment.sent}
            log.info("shipped what a dead gateway had left", extra=told)
        del self._shipping[name]
        self._closed[name] = source, shipment.shipped


async def drop_sealed(source: Source, store: LedgerStore, oldest_needed: int) -> None:
    """Deletes a living source's files before ``oldest_needed`` that are sealed. Raises RedisError,
    OSError."""
    files = source.files()
    if len(files) < 2 or files[0][0] >= oldest_needed:
        return
    sealed = await store.sealed(source.name)
    for (number, path), (_, following) in pairwise(files):
        if number >= oldest_needed or _ended_before(following) > sealed:
            return
        path.unlink()


def _ended_before(path: Path) -> int:
    """How many ended calls the files before this one hold."""
    with path.open("rb") as file:
        first = read_frame(file.read(_HEADER_BYTES), 0)
    header = read_header(first.payload) if first else None
    if header is None:
        raise OSError(f"{path} has no header")
    return header.ended_before


def _sync_all(source: Source) -> None:
    """What a killed process had only written must not be shipped and then lost with the power."""
    for _, path in source.files():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
