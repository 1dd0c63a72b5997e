"""Choosing the replica that answers: the less busy of two random ones, near ones first.

Two random choices: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.upstream import Connection
from penstock.service.registry import ReplicaRecord

Regions: TypeAlias = frozenset[str] | None
"""The regions in which a call may be answered; None means all."""

FIRST_EJECTION_SECONDS = 0.5
LONGEST_EJECTION_SECONDS = 5.0
RETRY_SHARE = 0.2
"""Retries allowed for each success (the retry budget)."""
MOST_SAVED_RETRIES = 20.0
LONG_CALL_SECONDS = 0.005
"""From here on, one call more than the replica can run waits there, so that it never idles between
calls; shorter calls gain more from being merged meanwhile."""


@dataclass(slots=True, eq=False)
class ModelLoad:
    """How one replica fares with one model."""

    instances: int
    """Executions that the replica runs side by side."""
    in_flight: int = 0
    long_calls: bool = False
    """Whether the last call took long enough to keep the next one waiting at the replica."""
    last_answer: float = 0.0
    """When the last merged call was answered."""
    failures: int = 0
    ejected_until: float = 0.0

    @property
    def allowed(self) -> int:
        """Calls that may be in flight at once."""
        return self.instances + self.long_calls


@dataclass(slots=True, eq=False)
class Replica:
    """One Triton server as this gateway sees it."""

    id: str
    region: str
    endpoint: str
    connection: Connection
    loads: dict[str, ModelLoad] = field(default_factory=dict)
    """By Triton model name."""


class Router:
    """The replicas, who serves what, and how busy each is with this gateway's calls."""

    def __init__(self, region: str, connect: Callable[[str], Connection] = Connection) -> None:
        self._region = region
        self._connect = connect
        self._replicas: dict[str, Replica] = {}
        self._serving: dict[str, list[Replica]] = {}
        self._saved_retries = MOST_SAVED_RETRIES
        self._closing: set[asyncio.Task[None]] = set()

    def update(self, records: Iterable[ReplicaRecord]) -> None:
        """Takes the registry's present replicas; known ones keep their connection and load."""
        replicas: dict[str, Replica] = {}
        for record in records:
            known = self._replicas.get(record.id)
            if known is None or known.endpoint != record.endpoint:
                known = Replica(
                    record.id, record.region, record.endpoint, self._connect(record.endpoint)
                )
            known.loads = {
                model.triton_name: known.loads.get(model.triton_name) or ModelLoad(model.instances)
                for model in record.models
            }
            replicas[record.id] = known
        gone = [r for r in self._replicas.values() if replicas.get(r.id) is not r]
        self._replicas = replicas
        self._serving = self._by_model(replicas.values())
        for replica in gone:
            self._retire(replica)

    def count(self, triton_name: str) -> int:
        """Replicas that announce the model."""
        return len(self._serving.get(triton_name, ()))

    def usable(self, triton_name: str, regions: Regions = None) -> bool:
        """Whether any replica that announces the model there is not ejected."""
        now = time.monotonic()
        return any(
            r.loads[triton_name].ejected_until <= now for r in self._there(triton_name, regions)
        )

    def slots(self, triton_name: str, regions: Regions = None) -> int:
        """Merged calls that all replicas there take at once together."""
        return sum(r.loads[triton_name].allowed for r in self._there(triton_name, regions))

    def pick(self, triton_name: str, *, free_only: bool, regions: Regions = None) -> Replica | None:
        """The replica for the next call, or None: nobody serves it, or (free_only) all are busy.

        Only replicas in ``regions`` are taken, where they are given.
        """
        serving = self._there(triton_name, regions)
        if not serving:
            return None
        if len(serving) == 1:
            return serving[0] if self._open(serving[0], triton_name, free_only) else None
        able = [r for r in serving if self._open(r, triton_name, free_only)]
        near = [r for r in able if r.region == self._region] or able
        if not near:
            return None
        two = random.sample(near, 2) if len(near) > 2 else near
        return min(two, key=lambda r: r.loads[triton_name].in_flight)

    def begin(self, replica: Replica, triton_name: str) -> ModelLoad:
        """Counts a call in; give the result to ``end``."""
        load = replica.loads[triton_name]
        load.in_flight += 1
        return load

    def end(self, load: ModelLoad, seconds: float, *, lost: bool) -> None:
        """Counts a call out; a lost one ejects the replica for this model for a growing while."""
        load.in_flight -= 1
        load.long_calls = seconds >= LONG_CALL_SECONDS
        if not lost:
            load.failures = 0
            self._saved_retries = min(MOST_SAVED_RETRIES, self._saved_retries + RETRY_SHARE)
            return
        pause = min(LONGEST_EJECTION_SECONDS, FIRST_EJECTION_SECONDS * 2.0**load.failures)
        load.failures = min(load.failures + 1, 8)
        load.ejected_until = time.monotonic() + pause

    def may_retry(self) -> bool:
        """Takes one retry out of the budget, if there is one."""
        if self._saved_retries < 1.0:
            return False
        self._saved_retries -= 1.0
        return True

    async def close(self) -> None:
        """Ends every connection at once; whoever still has a call in flight had time to finish."""
        for task in self._closing:
            task.cancel()
        replicas, self._replicas, self._serving = self._replicas, {}, {}
        await asyncio.gather(*[replica.connection.close() for replica in replicas.values()])

    def _there(self, triton_name: str, regions: Regions) -> Sequence[Replica]:
        serving = self._serving.get(triton_name, ())
        if regions is None:
            return serving
        return [replica for replica in serving if replica.region in regions]

    def _open(self, replica: Replica, triton_name: str, free_only: bool) -> bool:
        load = replica.loads[triton_name]
        if free_only and load.in_flight >= load.allowed:
            return False
        return not load.ejected_until or load.ejected_until <= time.monotonic()

    @staticmethod
    def _by_model(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
        serving: dict[str, list[Replica]] = {}
        for replica in replicas:
            for triton_name in replica.loads:
                serving.setdefault(triton_name, []).append(replica)
        return serving

    def _retire(self, replica: Replica) -> None:
        task = asyncio.create_task(self._close_when_idle(replica))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @staticmethod
    async def _close_when_idle(replica: Replica) -> None:
        loads = list(replica.loads.values())
        give_up = time.monotonic() + 60
        while any(load.in_flight for load in loads) and time.monotonic() < give_up:
            await asyncio.sleep(0.2)
        await replica.connection.close()
