"""The bound of a rate, in virtual time, while everything that can go wrong does.

Real holders and the real script in a real Redis; only the clocks are the test's, and what lies
between the two: questions and answers that are lost or late, gateways that die, a Redis that is
emptied or comes back with old data.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gateway import keys
from gateway.limits.desk import Desk
from gateway.limits.pieces import Hold
from gateway.limits.rates import Bucket
from gateway.limits.scripts import Question, Script
from penstock.service.redis import connect
from tests.gateway.limits.windows import excess

CLOCK = "test:clock"
STEPPED = f"local function clock() return tonumber(redis.call('GET', '{CLOCK}')) end"
REAL_CLOCK = Script("redis_clock").text
LIMIT = 60
STEPS = 1_500
NEVER_GIVEN_TWICE = "back = math.min(back, math.max(0, given - piece.given))"
A_LEASE_IS_A_DEBIT = "level = level - granted"
LEVEL_AND_LEASES_FIT = "capacity - unspent"
EMPTY_AFTER_A_LOSS = "at = tonumber(born) + ttl"


class World:
    """Three gateways that share one limit."""

    def __init__(self, server: redis.Redis, desk: Desk, seed: int, swap: tuple[str, str]) -> None:
        self.chance = random.Random(seed)
        self.redis = server
        self.desk = desk
        self.swap = swap
        self.now = 1_000.0
        self.holders = [self._holder() for _ in range(3)]
        self.open: list[tuple[int, Hold, float]] = []
        self.late: list[Question] = []
        self.admitted: list[tuple[float, int]] = []
        self.old: dict[bytes, bytes] = {}
        self.redis.flushdb()
        self.redis.hset(keys.SOFT_BIRTH, mapping={"at": "0", "run": self._run()})

    def live(self) -> float:
        """By how much the bound is exceeded after many random steps."""
        common = [*[self.ask] * 8, self.reserve, self.settle, self.deliver_late, self.remember]
        quiet = [
            *common,
            *[self.wait] * 4,
            *[self.doze] * 4,
            *[self.hoard] * 4,
            *[self.reserve] * 4,
        ]
        storm = [*common, *[self.grab] * 20, self.wait]
        accidents = [self.kill, self.empty, self.roll_back, self.pause]
        for step in range(STEPS):
            self.chance.choice(storm if step // 100 % 2 else quiet)()
            if step % 100 == 99:
                self.chance.choice(accidents)()
        self.admitted += [(at, hold.units) for _, hold, at in self.open]
        return excess(self.admitted, LIMIT, LIMIT / 60)

    def grab(self) -> None:
        holder, units = self.chance.choice(self.holders), self.chance.randint(1, 6)
        if not holder.has(units, self.now):
            holder.want(units, self.now)
            self.ask_for(holder)
        while holder.has(units, self.now):
            holder.take(units, self.now)
            self.admitted.append((self.now, units))

    def hoard(self) -> None:
        self.chance.choice(self.holders).want(self.chance.randint(5, 25), self.now)

    def reserve(self) -> None:
        place, units = self.chance.randrange(3), self.chance.randint(1, 8)
        holder = self.holders[place]
        if holder.has(units, self.now):
            self.open.append((place, holder.hold(units, self.now), self.now))
        else:
            holder.want(units, self.now)

    def settle(self) -> None:
        if self.open:
            _, hold, at = self.open.pop(self.chance.randrange(len(self.open)))
            used = self.chance.randint(0, hold.units)
            hold.settle(used, self.now)
            self.admitted.append((at, used))

    def ask(self) -> None:
        holder = self.chance.choice(self.holders)
        if holder.due(self.now) or self.chance.random() < 0.7:
            self.ask_for(holder)

    def ask_for(self, holder: Bucket) -> None:
        asked = self.now
        question = holder.question(asked)
        if question is None:
            return
        fate = self.chance.random()
        if fate < 0.1:  # Never arrives, or arrives when nobody waits any more.
            self.late += [question] * self.chance.randint(0, 2)
            holder.unanswered(asked, self.now)
            return
        self.now += self.chance.choice([0.0, 0.001, 0.1])
        answer = self.run(question)
        self.now += self.chance.choice([0.0, 0.001, 0.1])
        if fate < 0.2:
            holder.unanswered(asked, self.now)
        else:
            holder.answered(answer, asked, self.now)

    def lease(self, holder: Bucket, units: int) -> None:
        """Has the holder ask, and nothing goes wrong."""
        holder.want(units, self.now)
        question = holder.question(self.now)
        if question is not None:
            holder.answered(self.run(question), self.now, self.now)

    def deliver_late(self) -> None:
        if self.late:
            self.run(self.late.pop(self.chance.randrange(len(self.late))))

    def wait(self) -> None:
        self.now += self.chance.choice([0.01, 0.1, 0.5, 1.5])

    def doze(self) -> None:
        self.now += self.chance.choice([0.5, 2.0, 9.0])

    def pause(self) -> None:
        self.now += self.chance.choice([5.0, 11.0, 70.0])

    def kill(self) -> None:
        place = self.chance.randrange(3)
        self.holders[place] = self._holder()
        self.admitted += [(at, hold.units) for where, hold, at in self.open if where == place]
        self.open = [entry for entry in self.open if entry[0] != place]

    def empty(self) -> None:
        self.redis.flushdb()
        self.redis.hset(keys.SOFT_BIRTH, mapping={"at": repr(self.now), "run": self._run()})

    def remember(self) -> None:
        self.old = self.redis.hgetall(keys.bucket("units", "key:k"))  # type: ignore[assignment]

    def roll_back(self) -> None:
        """The server starts again with what it had on disk."""
        if self.old:
            self.redis.delete(keys.bucket("units", "key:k"))
            self.redis.hset(keys.bucket("units", "key:k"), mapping=self.old)  # type: ignore[arg-type]
        self.redis.hset(keys.SOFT_BIRTH, "run", "another")

    def run(self, question: Question) -> Any:
        self.redis.set(CLOCK, repr(self.now))
        text = STEPPED + question.script.text.removeprefix(REAL_CLOCK)
        assert self.swap[0] in text
        return self.redis.eval(
            text.replace(*self.swap), len(question.keys), *question.keys, *question.args
        )

    def _holder(self) -> Bucket:
        return Bucket("units", "key:k", LIMIT, self.desk, f"{self.chance.getrandbits(64):x}")

    def _run(self) -> str:
        return str(self.redis.info("server")["run_id"])


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
async def desk(redis_url: str) -> Desk:
    """Never started: the test carries the questions."""
    return Desk(connect(redis_url))


@pytest.mark.parametrize("seed", range(12))
async def test_no_window_holds_more_than_the_limit_whatever_is_lost(
    server: redis.Redis, desk: Desk, seed: int
) -> None:
    world = World(server, desk, seed, ("", ""))
    assert world.live() <= 1e-6
    # Refusing everybody would be no proof.
    assert sum(units for _, units in world.admitted) > 1.5 * LIMIT


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        (A_LEASE_IS_A_DEBIT, ""),
        (NEVER_GIVEN_TWICE, "back = given"),
        (LEVEL_AND_LEASES_FIT, "capacity"),
        ("if known ~= born then", "if not known then"),
    ],
)
async def test_each_rule_of_the_script_is_needed(
    server: redis.Redis, desk: Desk, rule: str, broken: str
) -> None:
    assert any(World(server, desk, seed, (rule, broken)).live() > 1 for seed in range(12))


@pytest.mark.parametrize(
    ("rule", "leaks"),
    [("", False), ("at = tonumber(born)", True)],
)
async def test_what_was_leased_before_a_loss_ends_before_the_bucket_refills(
    server: redis.Redis, desk: Desk, rule: str, leaks: bool
) -> None:
    world = World(server, desk, 1, (EMPTY_AFTER_A_LOSS, rule) if rule else ("", ""))
    first, second, _ = world.holders
    world.lease(first, LIMIT)
    world.empty()
    world.lease(second, 1)
    world.now += 9.9
    while first.has(1, world.now):
        first.take(1, world.now)
        world.admitted.append((world.now, 1))
    for _ in range(20):
        world.lease(second, 1)
        if second.has(1, world.now):
            second.take(1, world.now)
            world.admitted.append((world.now, 1))
    assert (excess(world.admitted, LIMIT, LIMIT / 60) > 1e-6) is leaks
    world.now += 2.0
    world.lease(second, 1)
    assert second.has(1, world.now)


async def test_an_idle_bucket_fills_up_however_its_pieces_ended(
    server: redis.Redis, desk: Desk
) -> None:
    world = World(server, desk, 1, ("", ""))
    for holder in world.holders:
        world.lease(holder, 5)
        holder.take(2, world.now)
    world.now += 120.0
    fresh = Bucket("units", "key:k", LIMIT, desk, "fresh")
    world.lease(fresh, LIMIT)
    assert fresh.has(LIMIT, world.now)


async def test_what_a_call_used_beyond_its_reservation_is_paid_from_the_next_piece(
    server: redis.Redis, desk: Desk
) -> None:
    world = World(server, desk, 1, ("", ""))
    holder = world.holders[0]
    world.lease(holder, 10)
    hold = holder.hold(10, world.now)
    hold.settle(25, world.now)
    taken = 0
    for _ in range(LIMIT):
        world.lease(holder, 1)
        if holder.has(1, world.now):
            holder.take(1, world.now)
            taken += 1
    assert taken == LIMIT - 25
