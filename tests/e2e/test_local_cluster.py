"""The local cluster as a developer meets it: it comes up, says what failed, leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.client import Client
from penstock.service.local.cluster import (
    AlreadyRunning,
    ClusterFailed,
    ClusterOptions,
    LocalCluster,
)
from penstock.service.local.processes import members
from penstock.service.local.state import read_state
from tests.e2e.test_families import HONEST


def test_a_stopped_cluster_leaves_no_process_and_keeps_its_keys(tmp_path: Path) -> None:
    options = ClusterOptions(state_dir=tmp_path, models=("fraud",))
    with LocalCluster(options) as cluster:
        cluster_id, key = cluster.state.cluster_id, cluster.api_key
        processes = [record.process for record in cluster.state.processes]
        assert len(processes) == 5
        # Beyond those four: tritonserver, its guard, and the model's own process.
        assert len(members(cluster_id)) >= 6
        with pytest.raises(AlreadyRunning):
            LocalCluster(options).start()
    assert members(cluster_id) == []
    assert not any(process.alive() for process in processes)
    assert read_state(tmp_path) is None
    with LocalCluster(options) as again, Client(again.endpoint, key, tls=False) as client:
        assert client.predict("fraud", HONEST)[0].label == "honest"


def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    options = ClusterOptions(
        state_dir=tmp_path, models=("fraud",), settings={"PENSTOCK_GATEWAY_KEY_PEPPER": "short"}
    )
    cluster = LocalCluster(options)
    with pytest.raises(ClusterFailed, match="PENSTOCK_GATEWAY_KEY_PEPPER"):
        cluster.start()
    assert read_state(tmp_path) is None
    with pytest.raises(ClusterFailed):
        cluster.endpoint  # noqa: B018
