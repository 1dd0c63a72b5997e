"""`penstock up` tells the command where to call, unless it calls another cluster already."""

from __future__ import annotations

import json
from pathlib import Path

from penstock.service.local.cli_configuration import write_configuration


def test_up_leaves_a_configuration_for_a_cluster_elsewhere_alone(tmp_path: Path) -> None:
    path = tmp_path / "penstock" / "config.json"
    assert write_configuration(path, "127.0.0.1:8400", "psk_one")
    assert write_configuration(path, "127.0.0.1:8401", "psk_two")
    assert json.loads(path.read_text())["api_key"] == "psk_two"
    path.write_text(json.dumps({"endpoint": "models.example.com:443", "api_key": "psk_theirs"}))
    assert not write_configuration(path, "127.0.0.1:8400", "psk_three")
    assert json.loads(path.read_text())["api_key"] == "psk_theirs"
