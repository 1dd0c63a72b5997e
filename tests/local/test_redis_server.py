"""The local Redis is private and durable."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError

from penstock.service.local.ports import free_port, is_free
from penstock.service.local.redis_server import RedisServer
from penstock.service.redis import connect


@pytest.fixture
def server(tmp_path: Path) -> RedisServer:
    return RedisServer(tmp_path / "redis", free_port())


def started(server: RedisServer) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    assert server.wait()
    return child


async def test_an_acknowledged_write_survives_a_kill(server: RedisServer) -> None:
    child = started(server)
    try:
        redis = connect(server.url())
        await redis.set("kept", "yes")
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        await redis.aclose()
        child = started(server)
        redis = connect(server.url())
        assert await redis.get("kept") == b"yes"
        await redis.aclose()
    finally:
        child.terminate()
        child.wait()


async def test_nobody_gets_in_without_the_password(server: RedisServer) -> None:
    child = started(server)
    try:
        stranger = connect(f"redis://127.0.0.1:{server.port}/0")
        with pytest.raises(AuthenticationError):
            await stranger.get("anything")
        await stranger.aclose()
    finally:
        child.terminate()
        child.wait()


def test_the_password_is_on_no_command_line_and_in_no_readable_file(server: RedisServer) -> None:
    password = server.url().split(":")[2].split("@")[0]
    configuration = Path(server.command()[-1])
    assert password in configuration.read_text()
    assert configuration.stat().st_mode & 0o077 == 0
    assert password not in " ".join(server.command())


async def test_a_port_that_is_taken_is_passed_over(server: RedisServer) -> None:
    child = started(server)
    try:
        assert not is_free(server.port)
        assert free_port(server.port) != server.port
    finally:
        child.terminate()
        child.wait()
