"""Which replica is picked, and which is left alone."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from gateway import routing
from gateway.routing import Router
from penstock.service.registry import ReplicaRecord, ServedModel

MODEL = "echo--1"


def record(name: str, region: str = "here", endpoint: str = "127.0.0.1:1") -> ReplicaRecord:
    served = ServedModel(name="echo", version="1", triton_name=MODEL, instances=1, max_batch=8)
    return ReplicaRecord(id=name, endpoint=endpoint, region=region, models=(served,))


def picks(router: Router, times: int, *, free_only: bool = False) -> Counter[str]:
    """Who is picked, each pick staying in flight."""
    found: Counter[str] = Counter()
    for _ in range(times):
        replica = router.pick(MODEL, free_only=free_only)
        if replica is not None:
            router.begin(replica, MODEL)
            found[replica.id] += 1
    return found


async def test_work_spreads_over_all_replicas() -> None:
    router = Router("here")
    router.update([record(name) for name in "abcd"])
    found = picks(router, 400)
    assert set(found) == set("abcd")
    assert max(found.values()) - min(found.values()) <= 8


async def test_near_replicas_come_first_and_far_ones_when_near_ones_are_full() -> None:
    router = Router("here")
    router.update([record("near"), record("far", region="there")])
    assert picks(router, 2, free_only=True) == {"near": 1, "far": 1}
    assert router.pick(MODEL, free_only=True) is None


async def test_a_lost_replica_is_skipped_for_a_growing_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("gateway.routing.time.monotonic", lambda: now)
    router = Router("here")
    router.update([record("only")])
    for pause in (0.5, 1.0, 2.0, 4.0, 5.0, 5.0):
        replica = router.pick(MODEL, free_only=True)
        assert replica is not None
        router.end(router.begin(replica, MODEL), 0.001, lost=True)
        assert not router.usable(MODEL)
        now += pause - 0.01
        assert router.pick(MODEL, free_only=True) is None
        now += 0.02
        assert router.usable(MODEL)


async def test_a_replica_keeps_its_load_when_the_registry_is_read_again() -> None:
    router = Router("here")
    router.update([record("only")])
    assert picks(router, 2, free_only=True) == {"only": 1}
    router.update([record("only")])
    assert router.pick(MODEL, free_only=True) is None
    router.update([record("only", endpoint="127.0.0.1:2")])
    assert router.pick(MODEL, free_only=True) is not None
    router.update([])
    assert router.count(MODEL) == 0


async def test_retries_are_a_fifth_of_successes() -> None:
    router = Router("here")
    router.update([record("only")])
    granted = sum(router.may_retry() for _ in range(100))
    assert granted == routing.MOST_SAVED_RETRIES
    replica = router.pick(MODEL, free_only=True)
    assert replica is not None
    for _ in range(50):
        router.end(router.begin(replica, MODEL), 0.001, lost=False)
    assert sum(router.may_retry() for _ in range(100)) in (9, 10)


async def test_a_replica_of_long_calls_keeps_the_next_one_at_hand() -> None:
    router = Router("here")
    router.update([record("only")])
    replica = router.pick(MODEL, free_only=True)
    assert replica is not None
    router.end(router.begin(replica, MODEL), 0.2, lost=False)
    assert picks(router, 5, free_only=True) == {"only": 2}
    router.end(replica.loads[MODEL], 0.001, lost=False)
    assert router.pick(MODEL, free_only=True) is None


async def test_closing_does_not_wait_for_a_call_that_never_ends() -> None:
    router = Router("here")
    router.update([record("only")])
    replica = router.pick(MODEL, free_only=True)
    assert replica is not None
    router.begin(replica, MODEL)
    await asyncio.wait_for(router.close(), 5)
    assert router.count(MODEL) == 0


async def test_a_call_that_is_bound_to_regions_is_never_answered_elsewhere() -> None:
    router = Router("here")
    router.update([record("near"), record("far", region="there"), record("else", region="else")])
    for _ in range(50):
        picked = router.pick(MODEL, free_only=False, regions=frozenset({"there"}))
        assert picked is not None
        assert picked.id == "far"
    two = frozenset({"there", "else"})
    assert {p.id for _ in range(50) if (p := router.pick(MODEL, free_only=False, regions=two))} <= {
        "far",
        "else",
    }
    nowhere = frozenset({"nowhere"})
    assert router.pick(MODEL, free_only=False, regions=nowhere) is None
    assert (router.usable(MODEL, nowhere), router.slots(MODEL, nowhere)) == (False, 0)
    assert (router.usable(MODEL, two), router.slots(MODEL, two)) == (True, 2)
