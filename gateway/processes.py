"""Several gateway processes on one port: started, watched and ended together.

The kernel shares incoming connections among the processes (SO_REUSEPORT).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time

from gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

RESTART_PAUSE_SECONDS = 1.0


def run_processes(settings: GatewaySettings) -> int:
    """Runs the processes until SIGTERM or SIGINT; returns this process's exit status."""
    host, _, port = settings.listen.rpartition(":")
    with _reserved(host, int(port)) as reservation:
        listen = f"{host}:{reservation.getsockname()[1]}"
        stopping = False

        def stop(*_: object) -> None:
            nonlocal stopping
            stopping = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        children = {index: _start(settings, listen, index) for index in range(settings.processes)}
        while not stopping:
            time.sleep(0.1)
            for index, child in children.items():
                if child.poll() is not None:
                    log.error("a gateway process ended", extra={"status": child.returncode})
                    time.sleep(RESTART_PAUSE_SECONDS)
                    if not stopping:
                        children[index] = _start(settings, listen, index)
        for child in children.values():
            child.terminate()
        return max(abs(child.wait()) for child in children.values())


def _start(settings: GatewaySettings, listen: str, index: int) -> subprocess.Popen[bytes]:
    prefix = str(settings.model_config.get("env_prefix"))
    own = {"LISTEN": listen, "PROCESSES": "1", "SHARE_PORT": "true"}
    if settings.metrics_listen:
        host, _, port = settings.metrics_listen.rpartition(":")
        own["METRICS_LISTEN"] = f"{host}:{int(port) + index}"
    environment = os.environ | {prefix + name: value for name, value in own.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway"], env=environment, start_new_session=False
    )


def _reserved(host: str, port: int) -> socket.socket:
    """Holds the port for the children without listening; fails if anybody else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = host.strip("[]")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        port = probe.getsockname()[1]
    reservation = socket.socket(family, socket.SOCK_STREAM)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reservation.bind((address, port))
    return reservation
