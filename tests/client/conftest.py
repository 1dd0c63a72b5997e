"""A scripted server and clients of it, one of each kind a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from penstock import AsyncClient, Client
from tests.client.scripted import Scripted, Served


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the developer's own settings reaches a test."""
    for name in ("PENSTOCK_ENDPOINT", "PENSTOCK_API_KEY", "PENSTOCK_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_CONFIG", str(tmp_path / "config.json"))


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.stop()


@pytest.fixture
def scripted(served: Served) -> Scripted:
    return served.scripted


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(f"http://{served.endpoint}", "psk_test") as client:
        yield client


@pytest.fixture
async def async_client(served: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"http://{served.endpoint}", "psk_test") as client:
        yield client
