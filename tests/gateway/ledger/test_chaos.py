"""The ledger's promise, while gateways and Redis are killed under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.ledger.chaos import run


@pytest.mark.timeout(150)
async def test_every_answer_is_billed_once_whatever_is_killed(tmp_path: Path) -> None:
    report = await run(tmp_path, rate=500.0, seconds=20.0)
    assert report.sent >= 9_900
    assert report.answered > report.sent / 2
    # Two gateways were killed: there are their sources, those of their successors, and the third.
    assert report.sources >= 5
    assert report.lost_streams > 0
    assert report.broken_streams > 0
