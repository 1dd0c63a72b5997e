"""Ports that are free now and that nobody takes by accident a moment later."""

from __future__ import annotations

import random
import socket

_BELOW_EPHEMERAL = range(20_000, 32_000)
"""Linux gives 32768 and up to outgoing connections; one of them could take a port meanwhile."""


class NoPortFree(Exception):
    """No port could be bound."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the port's last owner that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(preferred: int = 0) -> int:
    """The preferred port if it is free, else another one. Raises NoPortFree."""
    if preferred and is_free(preferred):
        return preferred
    for port in random.SystemRandom().sample(_BELOW_EPHEMERAL, 200):
        if is_free(port):
            return port
    raise NoPortFree("no free port between 20000 and 32000")
