"""An empty ledger on a real Redis and a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.service.ledger.writing import Ledger, ledger_in


@pytest.fixture
def ledger(tmp_path: Path, redis: Redis) -> Ledger:
    return ledger_in(tmp_path / "ledger", redis)
