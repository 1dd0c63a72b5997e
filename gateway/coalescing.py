"""Natural batching: while replicas are busy, calls for one model wait and leave as one call.

An idle replica gets a call at once; there is no timer. waiting.py decides what leaves together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from gateway import tensors
from gateway.calls import Call
from gateway.routing import ModelLoad, Regions, Replica, Router
from gateway.tensors import Tensor
from gateway.upstream import ReplicaLost, infer_request, output_tensors
from gateway.waiting import STANDARD_TIER, Batch, Member, Part, Queue
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
        self._router = router
        self._regions = regions
        self._slot_freed = slot_freed or self.pump
        self._queue = Queue(max_rows)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_due = False

    @property
    def cost_cap(self) -> float:
        """The cost that keeps a replica busy for as long as one call should."""
        return self._queue.cost_cap

    async def submit(self, rows: int, inputs: Sequence[Tensor], call: Call, tier: int) -> Part:
        """Answers the rows; at most ``max_rows`` of them.

        Raises NoReplica, ReplicaUnavailable, Overloaded, DeadlineExceeded, InvalidArgument.
        """
        member = Member(rows, inputs, call, tier or STANDARD_TIER)
        remaining = call.deadline - member.queued
        self._refuse_hopeless(remaining)
        self._queue.push(member)
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
                if not self._tasks and not self._usable():
                    self._fail_queue()
                return
            members = self._queue.take()
            if members:
                batch = Batch(members)
                load = self._router.begin(replica, self._triton_name)
                task = asyncio.create_task(self._send(batch, replica, load))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    def _refuse_hopeless(self, remaining: float) -> None:
        if remaining <= 0:
            raise DeadlineExceeded
        wait = self._queue.seconds
        wait /= self._router.slots(self._triton_name, self._regions) or 1
        if wait > remaining:
            raise Overloaded(
                f"{self._model!r} is busy for about {wait:.1f} s, longer than the deadline leaves",
                retry_after_seconds=wait,
            )

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
        self._queue.learn(now - max(sent, load.last_answer), sum(member.cost for member in members))
        load.last_answer = now
        outputs = output_tensors(response, batched=True)
        parts = zip(*[tensors.split(output, rows) for output in outputs], strict=True)
        for member, part in zip(members, parts, strict=True):
            if not member.future.done():
                member.future.set_result(
                    Part(list(part), replica.id, replica.region, sent - member.queued, took)
                )

    def _refuse(self, batch: Batch, error: InvalidArgument) -> None:
        if len(batch.members) == 1:
            _settle(batch.members, error)
            return
        for member in batch.members:
            member.alone = True
            self._requeue(member)

    def _retry_elsewhere(self, batch: Batch) -> None:
        for member in batch.members:
            again = not member.retried and self._usable()
            if again and self._router.may_retry():
                member.retried = True
                self._requeue(member)
            else:
                _settle([member], ReplicaUnavailable(self._model))

    def _requeue(self, member: Member) -> None:
        if not member.future.done():
            member.batch = None
            self._queue.push(member)

    def _usable(self) -> bool:
        return self._router.usable(self._triton_name, self._regions)

    def _fail_queue(self) -> None:
        refusal = NoReplica(self._model, regions=self._regions)
        _settle(list(self._queue.drain()), refusal)


def _settle(members: Sequence[Member], error: PenstockError) -> None:
    for member in members:
        if not member.future.done():
            member.future.set_exception(error)


def _expire(member: Member) -> None:
    if not member.future.done():
        member.future.set_exception(DeadlineExceeded())
        if member.batch is not None:
            member.batch.leave()
