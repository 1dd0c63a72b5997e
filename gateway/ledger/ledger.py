"""The gateway's half of the usage ledger: its journal, and the tasks that carry it to Redis."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.ledger.adoption import Adoption, drop_sealed
from gateway.ledger.events import Entry, EventWriter
from gateway.ledger.journal import Journal
from gateway.ledger.reading import JournalTampered
from gateway.ledger.shipment import MarkMisplaced, Shipment
from gateway.ledger.sources import Source
from gateway.ledger.store import LedgerStore
from gateway.payloads import PayloadKeeper
from gateway.settings import GatewaySettings
from penstock.service.prices import PriceTable

log = logging.getLogger(__name__)

SYNC_SECONDS = 0.1
"""What a loss of power can take of what has been answered."""
ADOPTION_SECONDS = 2.0
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 5.0
LEAVING_SECONDS = 3.0
"""How long an ending gateway tries to ship what it has left; another ships the rest."""


class Ledger:
    """Writes every call down once, and ships what it wrote."""

    def __init__(
        self,
        source: Source,
        settings: GatewaySettings,
        control: Redis,
        prices: PriceTable,
        payloads: PayloadKeeper | None = None,
    ) -> None:
        """Opens the journal. Raises OSError."""
        key = ledger_key(settings)
        self._source = source
        self._store = LedgerStore(control)
        self._journal = Journal(source, key)
        self._writer = EventWriter(self._journal, prices, payloads)
        self._shipment = Shipment(self._store, source, key, dead=False)
        self._adoption = Adoption(Path(settings.ledger_dir), self._store, key)
        self._durable = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def check(self) -> None:
        """Raises DependencyUnavailable while calls cannot be written down."""
        self._journal.check()

    def entry(self, method: str, request_id: str, started: float) -> Entry:
        """For a call that has just arrived; ``started`` is of ``time.monotonic()``."""
        return self._writer.entry(method, request_id, started)

    def start(self) -> None:
        """Begins to sync, to ship and to adopt."""
        self._tasks = [
            asyncio.create_task(self._sync()),
            asyncio.create_task(_persistently(self._ship, "events wait to be shipped")),
            asyncio.create_task(_persistently(self._look_after_files, "ledger files wait")),
        ]

    async def stop(self) -> None:
        """Writes and ships what is left, as far as Redis takes it now; the files stay."""
        await _end(self._tasks)
        self._writer.write_unwritten()
        await self._journal.close()
        try:
            async with asyncio.timeout(LEAVING_SECONDS):
                await self._shipment.ship(self._journal.durable)
        except (RedisError, JournalTampered, MarkMisplaced, OSError, TimeoutError) as error:
            log.warning("events are left to another gateway", extra={"cause": str(error)})
        self._adoption.release()
        self._source.release()

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            self._writer.write_unwritten()
            if await self._journal.sync():
                self._durable.set()

    async def _ship(self) -> None:
        await self._durable.wait()
        self._durable.clear()
        try:
            await self._shipment.ship(self._journal.durable)
        except BaseException:
            self._durable.set()
            raise

    async def _look_after_files(self) -> None:
        await self._adoption.run_once()
        await drop_sealed(self._source, self._store, self._writer.oldest_needed())
        await asyncio.sleep(ADOPTION_SECONDS)


def ledger_key(settings: GatewaySettings) -> bytes:
    """The key of the journals' anchors: of the setting, or derived from the pepper."""
    given = settings.ledger_key.get_secret_value().encode()
    pepper = settings.key_pepper.get_secret_value().encode()
    if given:
        return hashlib.sha256(given).digest()
    return hmac.digest(pepper, b"penstock ledger", "sha256")


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    pending = set(tasks)
    while pending:
        # More than once: redis-py swallows a cancellation that meets the end of a command.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


async def _persistently(step: Callable[[], Awaitable[None]], waiting: str) -> None:
    """Repeats the step for ever; after a failure, later and later."""
    pause = FIRST_BACKOFF_SECONDS
    while True:
        try:
            await step()
            pause = FIRST_BACKOFF_SECONDS
            continue
        except (RedisError, JournalTampered, MarkMisplaced, OSError) as error:
            log.warning(waiting, extra={"cause": str(error), "again_in_seconds": pause})
        except Exception:
            log.exception(waiting)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_BACKOFF_SECONDS)
