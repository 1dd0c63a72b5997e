"""Tells the `penstock` command where the local cluster is, without taking another one's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.service.local.state import write_private


def write_configuration(path: Path, endpoint: str, api_key: str) -> bool:
    """Points the command at the cluster; False if it points at a cluster elsewhere, and stays so.

    The format is the one that penstock.client.configuration reads.
    """
    known = str(_read(path).get("endpoint") or "")
    if known and not known.startswith(("127.0.0.1:", "localhost:", "[::1]:")):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"endpoint": endpoint, "api_key": api_key, "tls": False, "ca_file": None}
    write_private(path, json.dumps(stored, indent=2) + "\n")
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
