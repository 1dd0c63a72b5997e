"""A Redis server of one's own: which binary, which settings, and when it answers."""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import time
from pathlib import Path

from penstock.service.local.state import write_private

NAMES = ("redis-server", "valkey-server")


class RedisMissing(Exception):
    """No Redis can be started on this machine."""


class RedisServer:
    """A server below ``folder`` on a loopback port, durable, with a password of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        self._password = secrets.token_urlsafe(24)
        self._configuration = folder.resolve() / "redis.conf"
        # In a file, for a command line is public. Every acknowledged write is on the disk.
        lines = (
            "bind 127.0.0.1",
            f"port {port}",
            f'dir "{folder.resolve()}"',
            f"requirepass {self._password}",
            "appendonly yes",
            "appendfsync always",
            "maxmemory-policy noeviction",
            'save ""',
            "daemonize no",
        )
        write_private(self._configuration, "\n".join(lines) + "\n")

    def command(self) -> list[str]:
        """Runs it in the foreground. Raises RedisMissing."""
        return [redis_binary(), str(self._configuration)]

    def url(self, database: int = 0) -> str:
        """How to connect, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        """Whether it takes commands now; not while it still reads its file."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\n") < 2 and (piece := connection.recv(256)):
                    answer += piece
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"

    def wait(self, seconds: float = 15.0) -> bool:
        """Whether it answers within the time."""
        deadline = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def redis_binary() -> str:
    """The machine's own server if it has one, else the one in the virtual environment."""
    found = [shutil.which(name) for name in NAMES]
    found += [shutil.which(name, path=str(Path(sys.executable).parent)) for name in NAMES]
    for path in found:
        if path is not None:
            return path
    raise RedisMissing("no redis-server: run `make setup`, or install Redis or Valkey")
