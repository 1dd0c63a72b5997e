"""Walks a chain, one segment in memory at a time, and says where it is not what was sealed."""

from __future__ import annotations

import asyncio
import hmac
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.api.audit.v1 import audit_pb2
from penstock.service.ledger.chains import Chain, SegmentMissing
from penstock.service.ledger.links import GENESIS, Link, LinkBroken, chain_hash, removal_mac
from penstock.service.ledger.segments import Row, SegmentBroken, row_of

MISSING = audit_pb2.CHAIN_FAULT_KIND_MISSING
HASH_MISMATCH = audit_pb2.CHAIN_FAULT_KIND_HASH_MISMATCH
MAC_MISMATCH = audit_pb2.CHAIN_FAULT_KIND_MAC_MISMATCH
SEQUENCE_GAP = audit_pb2.CHAIN_FAULT_KIND_SEQUENCE_GAP
LINK_MISMATCH = audit_pb2.CHAIN_FAULT_KIND_LINK_MISMATCH


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where a chain does not fit."""

    segment: int
    kind: audit_pb2.ChainFaultKind.ValueType
    description: str


@dataclass(slots=True)
class Verification:
    """What was found in some consecutive segments."""

    faults: list[Fault] = field(default_factory=list)
    segments: int = 0
    events: int = 0
    head: Link | None = None
    """The last link that could be read."""
    next_segment: int = 0
    """The first segment that was not looked at; 0 at the end of the chain."""


async def verify(
    chain: Chain,
    head: Link | None,
    known: Mapping[int, str],
    first: int = 1,
    most: int = 1000,
    enough: Callable[[], bool] = lambda: False,
) -> Verification:
    """Verifies up to ``most`` segments from ``first`` on, or until ``enough`` says so.

    The anchors are ``head``, the link that the control Redis holds, and ``known``, hashes by
    segment that somebody noted before: what is missing below the highest of them is a fault.
    Without any, the chain ends where the store has no more. Raises DependencyUnavailable.
    """
    anchor = max([head.segment if head else 0, *known])
    end = anchor or await chain.last_segment()
    last = min(end, first + most - 1)
    walk = _Walk(chain, head, known)
    await walk.start_before(first)
    for segment in range(first, last + 1):
        await walk.step(segment, needed=segment <= anchor)
        if enough():
            last = segment
            break
    walk.found.next_segment = last + 1 if last < end else 0
    return walk.found


class _Walk:
    def __init__(self, chain: Chain, head: Link | None, known: Mapping[int, str]) -> None:
        self.found = Verification()
        self._chain = chain
        self._head = head
        self._known = known
        self._previous: str | None = GENESIS
        """The hash before; None where it is not known."""
        self._sequences: dict[str, int] = {}
        self._whole = True
        """Whether every source seen so far is in _sequences."""

    async def start_before(self, first: int) -> None:
        if first <= 1:
            return
        self._lose_track()
        try:
            link = await self._chain.link(first - 1)
        except LinkBroken:
            return
        if link is not None:
            self._previous = link.hash
            self._sequences = {source: last for source, (_, last) in link.sources.items()}

    async def step(self, segment: int, *, needed: bool) -> None:
        try:
            link = await self._chain.link(segment)
        except LinkBroken as broken:
            self.found.segments += 1
            self._fault(segment, MAC_MISMATCH, str(broken))
            self._lose_track()
            return
        if link is None:
            if needed:
                self.found.segments += 1
                self._fault(segment, MISSING, "the segment's link is not there")
                self._lose_track()
            return
        self.found.segments += 1
        if (link.ledger, link.segment) != (self._chain.ledger, segment):
            place = f"{link.ledger} segment {link.segment}"
            self._fault(segment, HASH_MISMATCH, f"the link is the one of {place}")
            self._lose_track()
            return
        self._check_link(link)
        await self._check_rows(link)
        self.found.head, self._previous = link, link.hash

    def _check_link(self, link: Link) -> None:
        if self._previous is not None and link.previous != self._previous:
            self._fault(link.segment, HASH_MISMATCH, "it does not continue the segment before")
        noted = self._known.get(link.segment)
        if noted is not None and noted != link.hash:
            self._fault(link.segment, LINK_MISMATCH, "its hash is not the one that was noted")
        head = self._head
        if head is not None and head.segment == link.segment and head.hash != link.hash:
            self._fault(link.segment, HASH_MISMATCH, "it is not the head that Redis knows")
        for source, (first, last) in link.sources.items():
            before = self._sequences.get(source, 0 if self._whole else None)
            if before is not None and first != before + 1:
                said = f"{source} goes on with {first:,} after {before:,}"
                self._fault(link.segment, SEQUENCE_GAP, said)
            self._sequences[source] = last

    async def _check_rows(self, link: Link) -> None:
        rows = await self._rows(link)
        if rows is None:
            return
        self.found.events += len(rows)
        faults = await asyncio.to_thread(_row_faults, link, rows, self._chain.key)
        self.found.faults += faults

    async def _rows(self, link: Link) -> list[Row] | None:
        kind, said = MISSING, ""
        for _ in range(2):
            try:
                return await self._chain.rows(link)
            except SegmentBroken as broken:
                kind, said = HASH_MISMATCH, str(broken)
            except SegmentMissing:
                kind, said = MISSING, "the segment's file is not there"
            # The retention sweeper may have put another file in its place in between.
            try:
                again = await self._chain.link(link.segment)
            except LinkBroken:
                break
            if again is None or again.hash != link.hash or again == link:
                break
            link = again
        self._fault(link.segment, kind, said)
        return None

    def _lose_track(self) -> None:
        self._previous, self._whole = None, False
        self._sequences = {}

    def _fault(
        self, segment: int, kind: audit_pb2.ChainFaultKind.ValueType, description: str
    ) -> None:
        self.found.faults.append(Fault(segment, kind, description))


def _row_faults(link: Link, rows: Sequence[Row], key: bytes) -> list[Fault]:
    """What is wrong inside a segment whose file is the one that its link names."""
    found = []
    digests = [row.digest for row in rows]
    if len(rows) != link.events:
        said = f"it holds {len(rows):,} events instead of {link.events:,}"
        found.append(Fault(link.segment, HASH_MISMATCH, said))
    if chain_hash(link.previous, link.ledger, link.segment, digests) != link.hash:
        found.append(Fault(link.segment, HASH_MISMATCH, "its events do not give its hash"))
    for index, row in enumerate(rows):
        fault = _row_fault(link, index, row, key)
        if fault is not None:
            found.append(fault)
    for source in _out_of_order(link, rows):
        said = f"the events of {source} are not the ones that it covers"
        found.append(Fault(link.segment, SEQUENCE_GAP, said))
    return found


def _row_fault(link: Link, index: int, row: Row, key: bytes) -> Fault | None:
    if row.event is not None:
        if row_of(row.source, row.sequence, row.event).digest == row.digest:
            return None
        return Fault(link.segment, HASH_MISMATCH, f"row {index} is not the event of its digest")
    proof = removal_mac(link.ledger, link.segment, index, row.digest, key)
    if row.removal is not None and hmac.compare_digest(proof, row.removal):
        return None
    return Fault(link.segment, MAC_MISMATCH, f"row {index} was not removed with the ledger key")


def _out_of_order(link: Link, rows: Sequence[Row]) -> list[str]:
    """The sources whose sequences in the rows are not the ones that the link promises."""
    seen: dict[str, list[int]] = {source: [] for source in link.sources}
    for row in rows:
        seen.setdefault(row.source, []).append(row.sequence)
    wrong = []
    for source, sequences in seen.items():
        first, last = link.sources.get(source, (1, 0))
        if link.ledger == "audit":
            fits = sequences == list(range(first, last + 1))
        else:
            rising = all(a < b for a, b in itertools.pairwise(sequences))
            fits = rising and all(first <= sequence <= last for sequence in sequences)
        if not fits:
            wrong.append(source)
    return wrong
