"""All demo models in the tests' one cluster, called directly."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import torch
from tritonclient.grpc.aio import InferenceServerClient

from penstock.service.local.cluster import LocalCluster
from penstock.service.redis import connect
from penstock.service.registry import ReplicaRegistry
from tests.workers.runtimes.served import ServedModels


@pytest.fixture(scope="session")
async def served(cluster: LocalCluster) -> AsyncIterator[ServedModels]:
    """The cluster's tritonserver with every demo model loaded."""
    soft = connect(cluster.state.soft_redis_url)
    # The models run directly for comparison must not fight the servers for the cores.
    torch.set_num_threads(1)
    (replica, *_) = await ReplicaRegistry(soft).replicas()
    await soft.aclose()
    async with InferenceServerClient(replica.endpoint) as client:
        yield ServedModels(client, cluster.options.artifacts)
