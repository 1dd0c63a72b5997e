"""One ledger's chain in the artifact store: a folder a segment, with its link and its Parquet file.

The link decides: a file that no link names is not there. Files are named by their digest, so that
any number of writers can prepare a segment and only the one whose link comes first makes it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.service.ledger.links import (
    GENESIS,
    Ledger,
    Link,
    chain_hash,
    decode_link,
    removal_mac,
)
from penstock.service.ledger.segments import Row, SegmentBroken, decode, encode, ended_at
from penstock.service.objects import Objects


class SegmentMissing(Exception):
    """The file that a link names is not there."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a new segment is made from. Both chains' segments of one number have the same span."""

    rows: Sequence[Row]
    sources: Mapping[str, tuple[int, int]]
    sealed_at: float
    last_outbox_id: str


class Chain:
    """Reads and extends a chain. Failures of the store raise DependencyUnavailable."""

    def __init__(self, objects: Objects, ledger: Ledger, key: bytes) -> None:
        self.ledger = ledger
        self.key = key
        self._objects = objects

    async def link(self, segment: int) -> Link | None:
        """A segment's link; None when there is none. Raises LinkBroken."""
        data = await self._objects.get(f"{self.folder(segment)}/link.json")
        if data is None:
            return None
        return await asyncio.to_thread(decode_link, data, self.key)

    async def data(self, link: Link) -> bytes:
        """A segment's file. Raises SegmentMissing, or SegmentBroken if it was changed."""
        data = await self._objects.get(self._file(link))
        if data is None:
            raise SegmentMissing
        if await asyncio.to_thread(_sha256, data) != link.file_sha256:
            raise SegmentBroken("the file's bytes are not the ones that were sealed")
        return data

    async def rows(self, link: Link) -> list[Row]:
        """A segment's rows. Raises SegmentMissing, SegmentBroken."""
        return await asyncio.to_thread(decode, await self.data(link))

    async def last_segment(self) -> int:
        """The highest number of any segment that was begun, 0 without one; reads every name."""
        numbers = [name for name in await self._objects.folders(self.ledger) if name.isdigit()]
        return int(numbers[-1]) if numbers else 0

    async def create(self, previous: Link | None, span: Span) -> Link | None:
        """Seals the next segment; None when another writer was first. Raises LinkBroken."""
        segment = previous.segment + 1 if previous else 1
        before = previous.hash if previous else GENESIS
        data = await asyncio.to_thread(encode, span.rows)
        times = [ended_at(row.event) for row in span.rows if row.event is not None]
        link = Link(
            ledger=self.ledger,
            segment=segment,
            previous=before,
            hash=chain_hash(before, self.ledger, segment, [row.digest for row in span.rows]),
            events=len(span.rows),
            file_sha256=_sha256(data),
            sources=dict(sorted(span.sources.items())),
            tenants=_tenants(span.rows),
            oldest_at=min(times, default=span.sealed_at),
            newest_at=max(times, default=span.sealed_at),
            sealed_at=span.sealed_at,
            last_outbox_id=span.last_outbox_id,
        ).signed(self.key)
        await self._objects.put(self._file(link), data)
        path = f"{self.folder(segment)}/link.json"
        if await self._objects.create(path, link.encoded()):
            return link
        winner = await self.link(segment)
        if winner is not None and winner.file_sha256 != link.file_sha256:
            await self._objects.delete(self._file(link))
        return None

    async def remove(self, link: Link, tenants: frozenset[str]) -> Link:
        """Takes the contents of these tenants' rows out of a segment; the chain's hash stays.

        Raises SegmentMissing, SegmentBroken. Broken off, it leaves the segment as it was before, or
        as it is afterwards.
        """
        rows = await self.rows(link)
        kept = [self._without(row, i, link, tenants) for i, row in enumerate(rows)]
        data = await asyncio.to_thread(encode, kept)
        changed = link.model_copy(
            update={"file_sha256": _sha256(data), "tenants": _tenants(kept)}
        ).signed(self.key)
        await self._objects.put(self._file(changed), data)
        await self._objects.put(f"{self.folder(link.segment)}/link.json", changed.encoded())
        return changed

    async def sweep(self, link: Link) -> None:
        """Deletes the files in a segment's folder that its link does not name."""
        for path in await self._objects.names(self.folder(link.segment)):
            if path.endswith(".parquet") and path != self._file(link):
                await self._objects.delete(path)

    def folder(self, segment: int) -> str:
        """Where a segment's objects are."""
        return f"{self.ledger}/{segment:012d}"

    def _file(self, link: Link) -> str:
        return f"{self.folder(link.segment)}/{link.file_sha256}.parquet"

    def _without(self, row: Row, index: int, link: Link, tenants: frozenset[str]) -> Row:
        if row.event is None or row.event.tenant not in tenants:
            return row
        proof = removal_mac(self.ledger, link.segment, index, row.digest, self.key)
        return replace(row, event=None, removal=proof)


def _tenants(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({row.event.tenant for row in rows if row.event is not None}))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
