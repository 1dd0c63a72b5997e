"""`penstock bootstrap` on a Redis that the gateway's variables name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from penstock.cli.app import build
from penstock.service.credentials import parse
from penstock.service.local.records import LOCAL_TENANT, Records
from penstock.service.local.redis_server import RedisServer

PEPPER = "a pepper of the tests"


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    url = redis_server.url(8)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def bootstrap(redis_url: str, state_dir: Path, *arguments: str) -> Result:
    environment = {
        "PENSTOCK_GATEWAY_CONTROL_REDIS_URL": redis_url,
        "PENSTOCK_GATEWAY_KEY_PEPPER": PEPPER,
    }
    command = ["bootstrap", "--state-dir", str(state_dir), *arguments]
    result: Any = CliRunner().invoke(build(), command, env=environment)
    return result  # type: ignore[no-any-return]


def test_a_fresh_cluster_gets_its_first_key_once(redis_url: str, tmp_path: Path) -> None:
    records = Records(redis_url, redis_url, PEPPER)
    first = bootstrap(redis_url, tmp_path)
    assert first.exit_code == 0
    assert records.is_usable(first.stdout.strip())
    second = bootstrap(redis_url, tmp_path)
    assert second.exit_code == 1
    assert second.stdout == ""
    assert "--again" in second.stderr
    third = json.loads(bootstrap(redis_url, tmp_path, "--again", "--json").stdout)
    assert third["tenant"] == "operators"
    assert records.is_usable(third["key"])
    assert third["key"] != first.stdout.strip()


def test_a_local_key_belongs_to_a_tenant_that_exists(redis_url: str) -> None:
    records = Records(redis_url, redis_url, PEPPER)
    key = parse(records.create_key("test", ["models:read"]))
    assert key is not None
    record = records.with_keys(lambda store: store.get(key.id))
    assert (record.tenant, record.scopes) == (LOCAL_TENANT, ("models:read",))
    assert not Records(redis_url, redis_url, "another pepper").is_usable("psk_nonsense")


def test_a_key_under_another_pepper_is_of_no_use(redis_url: str) -> None:
    key = Records(redis_url, redis_url, PEPPER).create_key("test")
    assert Records(redis_url, redis_url, PEPPER).is_usable(key)
    assert not Records(redis_url, redis_url, "another pepper").is_usable(key)
