"""Keeps this replica visible: a heartbeat in the soft Redis, and news as soon as there is any."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from penstock.service.registry import ReplicaRecord, ReplicaRegistry

log = logging.getLogger(__name__)


class Announcer:
    """Announces what ``describe`` returns; a Redis that forgot it is told at the next heartbeat."""

    def __init__(
        self,
        replicas: ReplicaRegistry,
        describe: Callable[[], ReplicaRecord],
        heartbeat_seconds: float,
    ) -> None:
        self._replicas = replicas
        self._describe = describe
        self._heartbeat_seconds = heartbeat_seconds
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reachable = True

    def start(self) -> None:
        """Begins the heartbeat."""
        self._task = asyncio.create_task(self._beat())

    def changed(self) -> None:
        """Announces again now."""
        self._news.set()

    async def withdraw(self) -> None:
        """Ends the heartbeat, then hides the replica; without Redis its record runs out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._replicas.withdraw(self._describe().id)
        except RedisError as error:
            log.warning("not withdrawn; the record will expire", extra={"cause": str(error)})

    async def _beat(self) -> None:
        while True:
            self._news.clear()
            await self._announce()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._heartbeat_seconds)

    async def _announce(self) -> None:
        try:
            await self._replicas.announce(self._describe())
        except RedisError as error:
            if self._reachable:
                log.warning("cannot be announced", extra={"cause": str(error)})
            self._reachable = False
            return
        if not self._reachable:
            log.info("announced again")
        self._reachable = True
