"""TLS: which authorities are trusted, and that nothing goes out to one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from penstock import AsyncClient, Client, ConfigurationError, Unreachable
from tests.client.scripted import Served, classified
from tests.gateway.test_process import certificate


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Served]:
    """A server for localhost with a certificate that only this test knows."""
    certificate(tmp_path, "localhost")
    pair = ((tmp_path / "key.pem").read_bytes(), (tmp_path / "certificate.pem").read_bytes())
    served = Served(credentials=grpc.ssl_server_credentials([pair]))
    served.scripted.behaviours["Classify"] = classified
    yield served
    served.stop()


def test_a_ca_file_is_trusted(secured: Served, tmp_path: Path) -> None:
    endpoint = f"localhost:{secured.port}"
    with Client(endpoint, "psk_test", ca_file=tmp_path / "certificate.pem") as client:
        assert client.classify("m", "hello")[0].label == "hello"
    assert secured.scripted.metadata[0]["authorization"] == "Bearer psk_test"


async def test_the_systems_authorities_are_trusted(
    secured: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with AsyncClient(f"https://localhost:{secured.port}", "psk_test") as client:
        assert (await client.classify("m", "hello"))[0].label == "hello"


def test_an_unknown_authority_is_not_trusted(secured: Served) -> None:
    with (
        Client(f"localhost:{secured.port}", "psk_test") as client,
        pytest.raises(Unreachable),
    ):
        client.classify("m", "hello", timeout=5)
    assert secured.scripted.metadata == []


def test_a_ca_file_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"no\.pem"):
        Client("localhost:1", ca_file="no.pem")
