"""Posts sealed usage events to an HTTP sink, in order, each at least once.

The position, the last segment that the sink took as a whole, is in the control Redis. After a
failure the segment is posted again: sinks tell repeats by the events' ``source`` and ``id``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.errors import DependencyUnavailable
from penstock.service.ledger.chains import Chain, SegmentMissing
from penstock.service.ledger.heads import read_heads
from penstock.service.ledger.links import LinkBroken
from penstock.service.ledger.segments import SegmentBroken
from scheduler import keys
from scheduler.cloudevents import CONTENT_TYPE, batch
from scheduler.redis_scripts import move_position, take_turn

log = logging.getLogger(__name__)

EVENTS_A_POST = 100
POLL_SECONDS = 1.0
POST_SECONDS = 30.0
TURN_SECONDS = 120.0
"""Longer than a post may take, so that one scheduler exports at a time."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class SinkRefused(Exception):
    """The sink did not take a batch."""


class Exporter:
    """Keeps one sink up to date."""

    def __init__(self, control: Redis, usage: Chain, sink: str, token: str, holder: str) -> None:
        self._redis = control
        self._usage = usage
        self._sink = sink
        self._holder = holder
        self._position = keys.export_position(sink)
        headers = {"content-type": CONTENT_TYPE}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self._http = httpx2.AsyncClient(headers=headers, timeout=POST_SECONDS)

    async def run(self) -> None:
        """Exports until it is cancelled; a failing sink is asked again after a growing pause."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                more = await self.export_segment()
                pause = FIRST_PAUSE_SECONDS
                if not more:
                    await asyncio.sleep(POLL_SECONDS)
                continue
            except (SinkRefused, RedisError, DependencyUnavailable, httpx2.HTTPError) as error:
                log.warning("export waits", extra={"cause": f"{type(error).__name__}: {error}"})
            except (LinkBroken, SegmentBroken, SegmentMissing) as error:
                log.error("export has stopped at a broken segment", extra={"cause": str(error)})
            except Exception:
                log.exception("export failed")
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    async def export_segment(self) -> bool:
        """Posts the next segment; False when there is none, or another scheduler exports.

        Raises SinkRefused, httpx2.HTTPError, RedisError, DependencyUnavailable, and LinkBroken,
        SegmentBroken or SegmentMissing where the ledger is broken.
        """
        if not await take_turn(self._redis, "export", self._holder, TURN_SECONDS):
            return False
        position = int(await _answer(self._redis.get(self._position)) or 0)
        head = (await read_heads(self._redis, self._usage.key)).usage
        if head is None or head.segment <= position:
            return False
        link = await self._usage.link(position + 1)
        if link is None:
            raise SegmentMissing(f"usage segment {position + 1}")
        rows = [row for row in await self._usage.rows(link) if row.event is not None]
        for start in range(0, len(rows), EVENTS_A_POST):
            await take_turn(self._redis, "export", self._holder, TURN_SECONDS)
            await self._post(batch(rows[start : start + EVENTS_A_POST]))
        return await move_position(self._redis, self._position, position, position + 1)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _post(self, body: bytes) -> None:
        answer = await self._http.post(self._sink, content=body)
        if not answer.is_success:
            raise SinkRefused(f"status {answer.status_code}: {answer.text[:200]}")


async def _answer(result: Any) -> Any:
    """redis-py types its commands as both plain and awaitable."""
    return await result
