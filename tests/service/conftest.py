"""What tests of the shared parts need: an empty Redis, and a package to break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis
from safetensors.numpy import save_file

from penstock.service.local.redis_server import RedisServer
from penstock.service.packages import ModelSpec, write_package
from penstock.service.redis import connect

SPEC = ModelSpec(
    name="mini",
    version="1",
    task="feature-extraction",
    runtime="transformers",
    weights="model.safetensors",
    dimensions=3,
)


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """An empty database."""
    client = connect(redis_server.url(9))
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A sealed package with weights, a tokenizer and a folder."""
    directory = tmp_path / "package"
    (directory / "onnx").mkdir(parents=True)
    save_file({"weight": np.ones((3, 3), np.float32)}, directory / "model.safetensors")
    (directory / "tokenizer.json").write_text('{"version": "1.0"}')
    (directory / "onnx" / "notes.md").write_text("Nothing here yet.\n")
    (directory / "README.md").write_text("# mini\n")
    write_package(directory, SPEC)
    return directory
