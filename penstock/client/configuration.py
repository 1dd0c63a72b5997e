"""Where the gateway is and with which key to call it: arguments, then environment, then file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDPOINT = "PENSTOCK_ENDPOINT"
API_KEY = "PENSTOCK_API_KEY"
CA_FILE = "PENSTOCK_CA_FILE"
CONFIG = "PENSTOCK_CONFIG"


class ConfigurationError(ValueError):
    """The client was told too little, or nonsense, about where and how to connect."""


@dataclass(frozen=True)
class Connection:
    """One gateway (or several behind one name) and the caller's key."""

    endpoint: str
    """host:port, or any gRPC target: dns:///host:port, ipv4:10.0.0.1:8400,10.0.0.2:8400."""
    api_key: str = ""
    tls: bool = True
    ca_file: str = ""
    """PEM file of the authorities to trust; empty trusts the system's."""
    client_certificate: tuple[str, str] | None = None
    """PEM files of the client's own certificate chain and of its private key, for mutual TLS."""

    def __repr__(self) -> str:
        return f"Connection(endpoint={self.endpoint!r}, tls={self.tls})"


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """The configuration file: $PENSTOCK_CONFIG, else penstock/config.json in $XDG_CONFIG_HOME."""
    if named := environment.get(CONFIG):
        return Path(named)
    home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "penstock" / "config.json"


def find_connection(
    endpoint: str | None = None,
    api_key: str | None = None,
    *,
    tls: bool | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    client_certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Connection:
    """Each setting from the argument, else PENSTOCK_*, else the configuration file.

    An endpoint may start with https:// or http://; the latter asks for plaintext. The file's key,
    TLS mode and authorities are used for the file's own endpoint only, so that its key never
    travels elsewhere. Anything else means TLS. Raises ConfigurationError when no endpoint is known
    or what is known makes no sense.
    """
    path = config_path(environment)
    stored = _read(path)
    own, own_tls = _split(str(stored.get("endpoint") or ""))
    target, asked_tls = _split(endpoint or environment.get(ENDPOINT) or "")
    if not target:
        target, asked_tls = own, own_tls
    if not target:
        raise ConfigurationError(
            f"no endpoint: pass endpoint=, set {ENDPOINT}, or write {path} (`penstock up` does)"
        )
    if target != own:
        stored = {}
    key = api_key if api_key is not None else environment.get(API_KEY)
    authorities = ca_file or environment.get(CA_FILE) or stored.get("ca_file") or ""
    if tls is None:
        tls = asked_tls
    if tls is None:
        tls = bool(stored.get("tls", True))
    if authorities and not tls:
        raise ConfigurationError("a CA file is of no use to a plaintext connection")
    if client_certificate and not tls:
        raise ConfigurationError("a client certificate is of no use to a plaintext connection")
    return Connection(
        target,
        str(key or stored.get("api_key") or ""),
        tls,
        os.fspath(authorities),
        None
        if client_certificate is None
        else (os.fspath(client_certificate[0]), os.fspath(client_certificate[1])),
    )


def _split(endpoint: str) -> tuple[str, bool | None]:
    """The gRPC target, and whether its scheme asks for TLS (None: it does not say)."""
    for scheme, tls in (("https://", True), ("http://", False)):
        if endpoint.startswith(scheme):
            host = endpoint.removeprefix(scheme).rstrip("/")
            if "/" in host:
                raise ConfigurationError(f"an endpoint has no path: {endpoint}")
            return (host if _has_port(host) else f"{host}:{443 if tls else 80}"), tls
    return endpoint, None


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not isinstance(stored, dict):
        raise ConfigurationError(f"{path} must hold a JSON object")
    return stored
