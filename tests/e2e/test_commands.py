"""`penstock up`, `status`, `down`, `keys` and `models`, run as people run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Client
from penstock.errors import ScopeMissing, Unauthenticated
from penstock.service.local.cluster import LocalCluster
from penstock.service.local.processes import members
from penstock.service.local.state import SOURCE_TREE, read_state
from tests.e2e.test_families import HONEST
from tests.local.test_supervision import eventually

PENSTOCK = Path(sys.executable).with_name("penstock")
REVOKED_WITHIN_SECONDS = 5.0


def penstock(*arguments: str, status: int = 0, **environment: str) -> str:
    """Runs the command; what it printed."""
    done = subprocess.run(
        [PENSTOCK, *arguments],
        env=os.environ | environment,
        cwd=SOURCE_TREE,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def on_small_cluster(small_cluster: LocalCluster) -> Callable[..., Any]:
    """Runs a verb with --json on the small cluster."""

    def run(*arguments: str) -> Any:
        state_dir = str(small_cluster.options.state_dir)
        return json.loads(penstock(*arguments, "--state-dir", state_dir, "--json"))

    return run


def test_status_tells_what_runs(
    small_cluster: LocalCluster, on_small_cluster: Callable[..., Any]
) -> None:
    told = on_small_cluster("status")
    assert told["running"]
    assert told["endpoint"] == small_cluster.endpoint
    names = {process["name"] for process in told["processes"] if process["running"]}
    assert names == {"redis", "scheduler", "triton-0", "agent-0", "gateway-0", "gateway-1"}
    assert [(model["model"], model["state"]) for model in told["models"]] == [("fraud", "ready")]


@pytest.fixture
def as_developer(small_cluster: LocalCluster) -> Callable[..., Any]:
    """Runs a verb with --json and the small cluster's development key."""

    def run(*arguments: str) -> Any:
        endpoint, key = f"http://{small_cluster.endpoint}", small_cluster.api_key
        told = penstock(*arguments, "--json", PENSTOCK_ENDPOINT=endpoint, PENSTOCK_API_KEY=key)
        return json.loads(told)

    return run


def test_a_created_key_works_within_its_scopes_until_it_is_revoked(
    small_cluster: LocalCluster, as_developer: Callable[..., Any]
) -> None:
    created = as_developer("keys", "create", "for a test", "--scope", "inference:invoke")
    key_id = created["key"]["id"]
    assert created["key"]["tenant_id"] == "local"
    with Client(small_cluster.endpoint, created["api_key"], tls=False) as client:
        assert client.predict("fraud", HONEST)[0].label == "honest"
        with pytest.raises(ScopeMissing):
            client.models.list()
        listed = {key["id"]: key for key in as_developer("keys", "list")["keys"]}
        assert listed[key_id]["state"] == "KEY_STATE_ACTIVE"
        assert created["api_key"] not in json.dumps(listed)
        assert as_developer("keys", "revoke", key_id)["state"] == "KEY_STATE_REVOKED"

        def refused() -> bool:
            try:
                return not client.predict("fraud", HONEST)
            except Unauthenticated:
                return True

        assert eventually(refused, REVOKED_WITHIN_SECONDS)


def test_a_damaged_package_cannot_be_registered(
    small_cluster: LocalCluster, tmp_path: Path
) -> None:
    source = small_cluster.options.artifacts / "fraud"
    for name in ("model.yaml", "MANIFEST.sha256", "README.md"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes((source / "model.onnx").read_bytes()[:-1])
    state_dir = str(small_cluster.options.state_dir)
    penstock("models", "register", str(tmp_path), "--state-dir", state_dir, status=1)


class Up:
    """A `penstock up` of one model."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / "state"
        self.config = folder / "config.json"
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [PENSTOCK, "up", "fraud", "--state-dir", self.state_dir],
                env=os.environ | {"PENSTOCK_CONFIG": str(self.config)},
                cwd=SOURCE_TREE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_up(self) -> str:
        """The cluster's id."""
        assert eventually(lambda: "Ctrl-C drains it" in self.told(), 50), self.told()
        state = read_state(self.state_dir)
        assert state is not None
        return state.cluster_id

    def told(self) -> str:
        return self.output.read_text()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait()


def test_up_writes_what_the_command_needs_and_ctrl_c_drains_it(up: Up) -> None:
    cluster_id = up.wait_until_up()
    answer = penstock("models", "list", "--json", PENSTOCK_CONFIG=str(up.config))
    assert [model["name"] for model in json.loads(answer)["models"]] == ["fraud"]
    assert up.config.stat().st_mode & 0o077 == 0
    assert json.loads(up.config.read_text())["api_key"] in up.told()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0, up.told()
    assert members(cluster_id) == []
    assert not json.loads(penstock("status", "--state-dir", str(up.state_dir), "--json", status=3))[
        "running"
    ]


def test_killing_up_leaves_nothing_behind(up: Up) -> None:
    cluster_id = up.wait_until_up()
    state = read_state(up.state_dir)
    assert state is not None
    up.process.kill()
    up.process.wait()
    assert eventually(lambda: members(cluster_id) == [], 40)
    assert eventually(lambda: not any(record.process.alive() for record in state.processes))


def test_down_ends_what_up_keeps(up: Up) -> None:
    cluster_id = up.wait_until_up()
    told = penstock("down", "--state-dir", str(up.state_dir), "--json")
    assert json.loads(told) == {"was_running": True}
    assert up.process.wait(5) == 0
    assert members(cluster_id) == []
