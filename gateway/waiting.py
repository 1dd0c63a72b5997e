"""The calls that wait for one model version: which of them leave together, and in which order.

A merged call is capped by rows and, through the measured speed of the model, by the time it may
keep others waiting; where not all that wait fit in, texts of like length leave together.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.calls import Call
from gateway.tensors import Tensor

MERGED_SECONDS = 0.1
"""How long a merged call should keep a replica busy at most, as far as speed is known."""
BACKLOG_SHARE = 0.5
LONGEST_MERGED_SECONDS = 0.5
"""With a backlog, a merged call may take this share of it, for so long: who waits for long anyway
gains more from a better packed call than from a short one. Not for the tiers that use slack, which
must let an urgent call in soon."""
SPEED_MEMORY = 0.2
"""Weight of the newest measurement in a lane's moving average of seconds a cost unit."""
STANDARD_TIER = 2


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one member of a merged call, answered."""

    outputs: list[Tensor]
    replica: str
    region: str
    queue_seconds: float
    inference_seconds: float


class Member:
    """One caller's rows on their way through a lane."""

    __slots__ = (
        "alone",
        "batch",
        "call",
        "cost",
        "future",
        "inputs",
        "length",
        "queued",
        "retried",
        "rows",
        "tier",
        "varies",
    )

    def __init__(self, rows: int, inputs: Sequence[Tensor], call: Call, tier: int) -> None:
        self.rows = rows
        self.inputs = inputs
        self.call = call
        self.tier = tier
        self.cost = sum(len(tensor.data) for tensor in inputs)
        self.length = self.cost / rows
        """Bytes a row."""
        self.varies = any(tensor.datatype == "BYTES" for tensor in inputs)
        """Whether rows differ in length, so that merging them can cost padding."""
        self.future: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        self.queued = time.monotonic()
        self.batch: Batch | None = None
        self.alone = False
        self.retried = False


class Batch:
    """A merged call in flight."""

    __slots__ = ("left", "members", "task")

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.left = len(members)
        self.task: asyncio.Task[None] | None = None
        """Set once it runs: a task cancelled before its first step would count nothing out."""
        for member in members:
            member.batch = self

    def leave(self) -> None:
        """One member lost interest; the call ends when the last one has."""
        self.left -= 1
        if self.left == 0 and self.task is not None:
            self.task.cancel()


class Queue:
    """Highest tier first, first come first served within it."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._queue: list[tuple[int, int, Member]] = []
        self._arrivals = 0
        self._cost = 0
        self._seconds_per_cost = 0.0

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def cost_cap(self) -> float:
        """The cost that keeps a replica busy for MERGED_SECONDS; infinite until speed is known."""
        return self._cost_of(MERGED_SECONDS)

    @property
    def seconds(self) -> float:
        """How long one execution after the other would take for all that wait."""
        return self._cost * self._seconds_per_cost

    def push(self, member: Member) -> None:
        """Lets it wait."""
        self._arrivals += 1
        self._cost += member.cost
        heapq.heappush(self._queue, (member.tier, self._arrivals, member))

    def take(self) -> list[Member]:
        """The longest waiting member of the highest tier, and as many as fit beside it."""
        head = self._pop()
        if head is None or head.alone:
            return [] if head is None else [head]
        if head.varies and self._cost + head.cost > self._cap(head):
            return self._take_like_lengths(head)
        members, rows, cost, cap = [head], head.rows, head.cost, self._cap(head)
        while self._queue:
            member = self._queue[0][2]
            if not member.future.done():
                full = rows + member.rows > self._max_rows or cost + member.cost > cap
                if full or member.alone or not _alike(head, member):
                    break
                members.append(member)
                rows += member.rows
                cost += member.cost
            self._drop_first()
        return members

    def _take_like_lengths(self, head: Member) -> list[Member]:
        # Texts of like length need the least padding. Each member is the head at its turn, so
        # nobody waits longer for it.
        waiting = [m for _, _, m in self._queue if not (m.future.done() or m.alone)]
        waiting.sort(key=lambda member: (abs(member.length - head.length), member.queued))
        members, rows, cost, cap = [head], head.rows, head.cost, self._cap(head)
        for member in waiting:
            fits = rows + member.rows <= self._max_rows and cost + member.cost <= cap
            if fits and _alike(head, member):
                members.append(member)
                rows += member.rows
                cost += member.cost
        taken = set(members)
        self._queue = [entry for entry in self._queue if entry[2] not in taken]
        heapq.heapify(self._queue)
        self._cost -= cost - head.cost
        return members

    def _cap(self, head: Member) -> float:
        if head.tier > STANDARD_TIER:
            return self.cost_cap
        backlog = min(self._cost * BACKLOG_SHARE, self._cost_of(LONGEST_MERGED_SECONDS))
        return max(self.cost_cap, backlog)

    def _cost_of(self, seconds: float) -> float:
        return seconds / self._seconds_per_cost if self._seconds_per_cost else float("inf")

    def _pop(self) -> Member | None:
        while self._queue:
            member = self._queue[0][2]
            self._drop_first()
            if not member.future.done():
                return member
        return None

    def _drop_first(self) -> None:
        self._cost -= heapq.heappop(self._queue)[2].cost

    def drain(self) -> Iterator[Member]:
        """Everyone that waits; nobody does afterwards."""
        queue, self._queue, self._cost = self._queue, [], 0
        return (member for _, _, member in queue)

    def learn(self, seconds: float, cost: int) -> None:
        """Notes how long an execution of that cost took."""
        measured = seconds / max(1, cost)
        known = self._seconds_per_cost or measured
        self._seconds_per_cost = known + SPEED_MEMORY * (measured - known)


def _alike(one: Member, other: Member) -> bool:
    return one.tier == other.tier and all(
        a.name == b.name and a.shape == b.shape
        for a, b in zip(one.inputs, other.inputs, strict=False)
    )
