"""Arguments win over the environment, that wins over the file; keys stay where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock import ConfigurationError
from penstock.client import find_connection
from penstock.client.configuration import config_path

LOCAL = {"endpoint": "127.0.0.1:8400", "api_key": "psk_local", "tls": False, "ca_file": None}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The file that `penstock up` writes, and nothing else."""
    path = tmp_path / "penstock.json"
    path.write_text(json.dumps(LOCAL))
    return {"PENSTOCK_CONFIG": str(path)}


def test_the_file_alone_is_enough(environment: dict[str, str]) -> None:
    connection = find_connection(environment=environment)
    assert (connection.endpoint, connection.api_key) == ("127.0.0.1:8400", "psk_local")
    assert not connection.tls


def test_the_environment_wins_over_the_file(environment: dict[str, str]) -> None:
    environment["PENSTOCK_API_KEY"] = "psk_mine"
    assert find_connection(environment=environment).api_key == "psk_mine"


def test_an_argument_wins_over_the_environment(environment: dict[str, str]) -> None:
    environment |= {"PENSTOCK_ENDPOINT": "elsewhere:1", "PENSTOCK_API_KEY": "psk_mine"}
    connection = find_connection("there:2", "psk_given", environment=environment)
    assert (connection.endpoint, connection.api_key) == ("there:2", "psk_given")


def test_the_files_key_and_plaintext_stay_with_its_endpoint(environment: dict[str, str]) -> None:
    environment["PENSTOCK_ENDPOINT"] = "api.example.com:443"
    connection = find_connection(environment=environment)
    assert connection.api_key == ""
    assert connection.tls


def test_the_files_endpoint_may_be_named_again(environment: dict[str, str]) -> None:
    environment["PENSTOCK_ENDPOINT"] = "127.0.0.1:8400"
    connection = find_connection(environment=environment)
    assert connection.api_key == "psk_local"
    assert not connection.tls


@pytest.mark.parametrize(
    ("endpoint", "target", "tls"),
    [
        ("api.example.com:8400", "api.example.com:8400", True),
        ("https://api.example.com", "api.example.com:443", True),
        ("http://sidecar:8400/", "sidecar:8400", False),
        ("http://[::1]", "[::1]:80", False),
        ("dns:///gateways.penstock:8400", "dns:///gateways.penstock:8400", True),
    ],
)
def test_plaintext_is_for_those_who_ask(endpoint: str, target: str, tls: bool) -> None:
    connection = find_connection(endpoint, environment={"PENSTOCK_CONFIG": "/nowhere"})
    assert (connection.endpoint, connection.tls) == (target, tls)


def test_no_endpoint_is_said_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match="PENSTOCK_ENDPOINT"):
        find_connection(environment={"PENSTOCK_CONFIG": "/nowhere"})


@pytest.mark.parametrize("content", ["not json", "[1]"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"broken\.json"):
        find_connection(environment={"PENSTOCK_CONFIG": str(path)})


def test_nonsense_is_refused() -> None:
    nowhere = {"PENSTOCK_CONFIG": "/nowhere"}
    with pytest.raises(ConfigurationError, match="no path"):
        find_connection("https://api.example.com/v1", environment=nowhere)
    with pytest.raises(ConfigurationError, match="plaintext"):
        find_connection("http://api.example.com", ca_file="ca.pem", environment=nowhere)


def test_a_key_does_not_show_in_a_log(environment: dict[str, str]) -> None:
    assert "psk_local" not in repr(find_connection(environment=environment))


def test_the_file_is_where_configuration_belongs() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/penstock/config.json")
    assert config_path({}) == Path.home() / ".config/penstock/config.json"
    assert config_path({"PENSTOCK_CONFIG": "/y.json", "XDG_CONFIG_HOME": "/x"}) == Path("/y.json")
