"""Natural batching: while replicas are busy, calls for one model wait and leave as one call.

An idle replica gets a call at once; there is no timer. A merged call is capped by rows and, through
the measured speed of the model, by the time it may keep others waiting; where not all that wait fit
in, texts of like length leave together.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway import tensors
from gateway.calls import Call
from gateway.routing import ModelLoad, Regions, Replica, Router
from gateway.tensors import Tensor
from gateway.upstream import ReplicaLost, infer_request, output_tensors
from penstock.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    NoReplica,
    Overloaded,
    PenstockError,
    ReplicaUnavailable,
)

log = logging.getLogger(__name__)

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


class Lane:
    """The queue of one model version: highest tier first, first come first served within it.

    Calls that must stay in some regions have lanes of their own, so that they are never merged into
    a call that leaves them. ``slot_freed`` is called when a call has ended, by default to go on
    with this lane.
    """

    def __init__(
        self,
        model: str,
        triton_name: str,
        max_rows: int,
        router: Router,
        regions: Regions = None,
        slot_freed: Callable[[], None] | None = None,
    ) -> None:
        self._model = model
        self._triton_name = triton_name
        self._max_rows = max_rows
        self._router = router
        self._regions = regions
        self._slot_freed = slot_freed or self.pump
        self._queue: list[tuple[int, int, Member]] = []
        self._arrivals = 0
        self._queued_cost = 0
        self._seconds_per_cost = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_due = False

    @property
    def cost_cap(self) -> float:
        """The cost that keeps a replica busy for MERGED_SECONDS; infinite until speed is known."""
        return self._cost_of(MERGED_SECONDS)

    async def submit(self, rows: int, inputs: Sequence[Tensor], call: Call, tier: int) -> Part:
        """Answers the rows; at most ``max_rows`` of them.

        Raises NoReplica, ReplicaUnavailable, Overloaded, DeadlineExceeded, InvalidArgument.
        """
        member = Member(rows, inputs, call, tier or STANDARD_TIER)
        remaining = call.deadline - member.queued
        self._refuse_hopeless(remaining)
        self._push(member)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(remaining, _expire, member)
        if not self._pump_due:
            # Calls that arrive in the same turn of the loop leave together.
            self._pump_due = True
            loop.call_soon(self.pump)
        try:
            return await member.future
        finally:
            timer.cancel()
            if member.future.cancelled() and member.batch is not None:
                member.batch.leave()

    def pump(self) -> None:
        """Sends what can be sent now; called whenever a slot or a replica may have come free."""
        self._pump_due = False
        while self._queue:
            replica = self._router.pick(self._triton_name, free_only=True, regions=self._regions)
            if replica is None:
                # What is in flight pumps again when it ends.
                here = self._router.usable(self._triton_name, self._regions)
                if not self._tasks and not here:
                    self._fail_queue()
                return
            members = self._take()
            if members:
                batch = Batch(members)
                load = self._router.begin(replica, self._triton_name)
                task = asyncio.create_task(self._send(batch, replica, load))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    def _refuse_hopeless(self, remaining: float) -> None:
        if remaining <= 0:
            raise DeadlineExceeded
        wait = self._queued_cost * self._seconds_per_cost
        wait /= self._router.slots(self._triton_name, self._regions) or 1
        if wait > remaining:
            raise Overloaded(
                f"{self._model!r} is busy for about {wait:.1f} s, longer than the deadline leaves",
                retry_after_seconds=wait,
            )

    def _push(self, member: Member) -> None:
        self._arrivals += 1
        self._queued_cost += member.cost
        heapq.heappush(self._queue, (member.tier, self._arrivals, member))

    def _take(self) -> list[Member]:
        """The longest waiting member of the highest tier, and as many as fit beside it."""
        head = self._pop()
        if head is None or head.alone:
            return [] if head is None else [head]
        if head.varies and self._queued_cost + head.cost > self._cap(head):
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
        self._queued_cost -= cost - head.cost
        return members

    def _cap(self, head: Member) -> float:
        if head.tier > STANDARD_TIER:
            return self.cost_cap
        backlog = min(self._queued_cost * BACKLOG_SHARE, self._cost_of(LONGEST_MERGED_SECONDS))
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
        self._queued_cost -= heapq.heappop(self._queue)[2].cost

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slot_freed()

    async def _send(self, batch: Batch, replica: Replica, load: ModelLoad) -> None:
        began, lost = time.monotonic(), False
        batch.task = asyncio.current_task()
        try:
            if batch.left > 0:
                await self._infer(batch, replica, load)
        except ReplicaLost as error:
            lost = True
            log.warning("replica lost", extra={"replica": replica.id, "cause": str(error)})
        except InvalidArgument as error:
            self._refuse(batch, error)
        except PenstockError as error:
            if isinstance(error, InternalError):
                log.error("inference failed", extra={"replica": replica.id, "cause": str(error)})
                error = InternalError()
            _settle(batch.members, error)
        except Exception:
            log.exception("inference failed", extra={"replica": replica.id})
            _settle(batch.members, InternalError())
        finally:
            self._router.end(load, time.monotonic() - began, lost=lost)
            if lost:
                self._retry_elsewhere(batch)

    async def _infer(self, batch: Batch, replica: Replica, load: ModelLoad) -> None:
        members = batch.members
        rows = [member.rows for member in members]
        sent = time.monotonic()
        timeout = max(member.call.deadline for member in members) - sent
        request = infer_request(
            self._triton_name,
            sum(rows),
            tensors.merge([member.inputs for member in members]),
            members[0].call.traceparent,
        )
        response = await replica.connection.infer(request, timeout)
        now = time.monotonic()
        took = now - sent
        # A call that waited at the replica for the one before ran since that one's answer.
        self._learn(now - max(sent, load.last_answer), sum(member.cost for member in members))
        load.last_answer = now
        outputs = output_tensors(response, batched=True)
        parts = zip(*[tensors.split(output, rows) for output in outputs], strict=True)
        for member, part in zip(members, parts, strict=True):
            if not member.future.done():
                member.future.set_result(
                    Part(list(part), replica.id, replica.region, sent - member.queued, took)
                )

    def _learn(self, seconds: float, cost: int) -> None:
        measured = seconds / max(1, cost)
        known = self._seconds_per_cost or measured
        self._seconds_per_cost = known + SPEED_MEMORY * (measured - known)

    def _refuse(self, batch: Batch, error: InvalidArgument) -> None:
        if len(batch.members) == 1:
            _settle(batch.members, error)
            return
        for member in batch.members:
            member.alone = True
            self._requeue(member)

    def _retry_elsewhere(self, batch: Batch) -> None:
        for member in batch.members:
            again = not member.retried and self._router.usable(self._triton_name, self._regions)
            if again and self._router.may_retry():
                member.retried = True
                self._requeue(member)
            else:
                _settle([member], ReplicaUnavailable(self._model))

    def _requeue(self, member: Member) -> None:
        if not member.future.done():
            member.batch = None
            self._push(member)

    def _fail_queue(self) -> None:
        for _, _, member in self._queue:
            _settle([member], NoReplica(self._model, regions=self._regions))
        self._queue.clear()
        self._queued_cost = 0


def _alike(one: Member, other: Member) -> bool:
    return one.tier == other.tier and all(
        a.name == b.name and a.shape == b.shape
        for a, b in zip(one.inputs, other.inputs, strict=False)
    )


def _settle(members: Sequence[Member], error: PenstockError) -> None:
    for member in members:
        if not member.future.done():
            member.future.set_exception(error)


def _expire(member: Member) -> None:
    if not member.future.done():
        member.future.set_exception(DeadlineExceeded())
        if member.batch is not None:
            member.batch.leave()
