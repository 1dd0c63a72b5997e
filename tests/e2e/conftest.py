"""A small cluster that a test may damage: one quick model, two gateways on one port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.service.local.cluster import ClusterOptions, LocalCluster


@pytest.fixture(scope="package")
def small_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Every test must leave it as it found it: everything running, the model answering."""
    options = ClusterOptions(
        state_dir=tmp_path_factory.mktemp("small-cluster"), models=("fraud",), gateways=2
    )
    with LocalCluster(options) as running:
        yield running
