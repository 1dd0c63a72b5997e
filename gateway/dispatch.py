"""From a model's name to its answer: resolve the version, run it merged with others, or stream."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gateway import tensors
from gateway.calls import Call
from gateway.catalog import Catalog, Target
from gateway.coalescing import Lane
from gateway.limits.bounds import measured, upper_bound
from gateway.routing import Regions, Replica, Router
from gateway.tensors import Tensor
from gateway.upstream import ReplicaLost, infer_request, output_tensors
from gateway.waiting import STANDARD_TIER, Part
from penstock.errors import (
    DeadlineExceeded,
    InternalError,
    NoReplica,
    ReplicaUnavailable,
    TaskMismatch,
    TierNotAllowed,
)

log = logging.getLogger(__name__)

TIER_NAMES = ("", "interactive", "standard", "batch", "best effort")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica answered, by output name."""

    outputs: Mapping[str, Tensor]
    replica: str
    region: str
    queue_seconds: float
    inference_seconds: float


class Dispatch:
    """Runs models for the handlers; the only way from a handler to a replica."""

    def __init__(self, catalog: Catalog, router: Router, stream_gap_seconds: float) -> None:
        self._catalog = catalog
        self._router = router
        self._stream_gap_seconds = stream_gap_seconds
        self._lanes: dict[str, dict[Regions, Lane]] = {}
        """By Triton model name, and by the regions that a caller is bound to."""
        catalog.on_change(self._pump)

    def resolve(self, model: str, version: str, tasks: frozenset[str], call: Call) -> Target:
        """The version that answers this call; an empty ``version`` follows the traffic weights.

        Raises ModelNotFound, VersionNotFound, TaskMismatch (an empty ``tasks`` allows all).
        """
        target = self._catalog.target(model, version, call.principal)
        if tasks and target.spec.task not in tasks:
            raise TaskMismatch(model, target.spec.task, call.method.rpartition("/")[2])
        call.model, call.model_version = target.model, target.version
        return target

    async def infer(
        self, target: Target, rows: int, inputs: Sequence[Tensor], call: Call, *, tier: int = 0
    ) -> Answer:
        """Runs the rows and answers in their order; many rows travel as several calls.

        Raises NoReplica, ReplicaUnavailable, Overloaded, DeadlineExceeded, InvalidArgument, and
        RateLimited, ConcurrencyLimited, BudgetExhausted, DependencyUnavailable by the limits.
        """
        tier = call.tier = _allowed_tier(tier, call)
        ticket = call.ticket
        await ticket.join(target.model)
        if not ticket.metered:
            return await self._infer(target, rows, inputs, call, tier)
        bound = upper_bound(target.spec, rows, inputs)
        await ticket.reserve(bound, call)
        used = None
        try:
            answer = await self._infer(target, rows, inputs, call, tier)
            used = measured(target.spec, rows, answer.outputs)
            return answer
        finally:
            ticket.narrow(bound, used, call)

    async def _infer(
        self, target: Target, rows: int, inputs: Sequence[Tensor], call: Call, tier: int
    ) -> Answer:
        lane = self._lane(target, call.principal.regions)
        cost = sum(len(tensor.data) for tensor in inputs)
        most = min(target.spec.max_batch, max(1, int(rows * min(1.0, lane.cost_cap / (cost or 1)))))
        if rows <= most:
            part = await lane.submit(rows, inputs, call, tier)
            call.replica, call.region = part.replica, part.region
            return Answer(
                {tensor.name: tensor for tensor in part.outputs},
                part.replica,
                part.region,
                part.queue_seconds,
                part.inference_seconds,
            )
        return await self._infer_chunks(lane, rows, most, inputs, call, tier)

    async def stream(
        self, target: Target, inputs: Sequence[Tensor], call: Call, *, tier: int = 0
    ) -> AsyncGenerator[Answer, None]:
        """Runs a decoupled model; yields each message and cancels the model when left early.

        Raises NoReplica, ReplicaUnavailable, DeadlineExceeded, InvalidArgument, and RateLimited,
        ConcurrencyLimited, BudgetExhausted, DependencyUnavailable by the limits.
        """
        tier = call.tier = _allowed_tier(tier, call)
        ticket = call.ticket
        await ticket.join(target.model)
        if ticket.metered:
            await ticket.reserve(upper_bound(target.spec, 1, inputs), call)
        replica = self._pick(target, call)
        timeout = call.remaining()
        request = infer_request(target.triton_name, None, inputs, call.traceparent)
        load = self._router.begin(replica, target.triton_name)
        messages = replica.connection.stream(request, timeout)
        sent, lost = time.monotonic(), False
        try:
            while True:
                async with asyncio.timeout(self._stream_gap_seconds):
                    message = await anext(messages, None)
                if message is None:
                    return
                outputs = {t.name: t for t in output_tensors(message, batched=False)}
                elapsed = time.monotonic() - sent
                yield Answer(outputs, replica.id, replica.region, 0.0, elapsed)
        except ReplicaLost as error:
            lost = True
            log.warning("replica lost", extra={"replica": replica.id, "cause": str(error)})
            raise ReplicaUnavailable(target.model) from error
        except InternalError as error:
            log.error("stream failed", extra={"replica": replica.id, "cause": str(error)})
            raise InternalError from error
        except TimeoutError:
            lost = True
            if call.remaining() <= 0:
                raise DeadlineExceeded from None
            raise ReplicaUnavailable(target.model) from None
        finally:
            await messages.aclose()
            self._router.end(load, time.monotonic() - sent, lost=lost)

    def _pick(self, target: Target, call: Call) -> Replica:
        regions = call.principal.regions
        replica = self._router.pick(target.triton_name, free_only=False, regions=regions)
        if replica is None:
            raise NoReplica(target.model, regions=regions)
        call.replica, call.region = replica.id, replica.region
        return replica

    async def _infer_chunks(
        self, lane: Lane, rows: int, most: int, inputs: Sequence[Tensor], call: Call, tier: int
    ) -> Answer:
        counts = [min(most, rows - start) for start in range(0, rows, most)]
        chunks = zip(*[tensors.split(tensor, counts) for tensor in inputs], strict=True)
        began = time.monotonic()
        tasks = [
            asyncio.create_task(lane.submit(count, chunk, call, tier))
            for count, chunk in zip(counts, chunks, strict=True)
        ]
        try:
            parts: list[Part] = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        call.replica, call.region = parts[0].replica, parts[0].region
        merged = tensors.merge([part.outputs for part in parts])
        queued = min(part.queue_seconds for part in parts)
        return Answer(
            {tensor.name: tensor for tensor in merged},
            parts[0].replica,
            parts[0].region,
            queued,
            time.monotonic() - began - queued,
        )

    def _lane(self, target: Target, regions: Regions) -> Lane:
        lanes = self._lanes.get(target.triton_name)
        if lanes is None:
            lanes = self._lanes[target.triton_name] = {}
        lane = lanes.get(regions)
        if lane is None:
            lane = lanes[regions] = Lane(
                target.model,
                target.triton_name,
                target.spec.max_batch,
                self._router,
                regions,
                partial(self._slot_freed, lanes, regions),
            )
        return lane

    @staticmethod
    def _slot_freed(lanes: dict[Regions, Lane], regions: Regions) -> None:
        # The other regions' first: else whoever is served would keep its replica for ever.
        if len(lanes) > 1:
            for other, lane in lanes.items():
                if other != regions:
                    lane.pump()
        lanes[regions].pump()

    def _pump(self) -> None:
        for lanes in self._lanes.values():
            for lane in lanes.values():
                lane.pump()


def _allowed_tier(tier: int, call: Call) -> int:
    highest = call.principal.highest_tier
    if tier == 0:
        return max(STANDARD_TIER, highest)
    if tier < highest:
        raise TierNotAllowed(TIER_NAMES[tier], TIER_NAMES[highest])
    return tier
