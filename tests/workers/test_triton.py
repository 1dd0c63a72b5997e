"""The launcher: one tritonserver as long as it is wanted, and nothing left when it is not."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from penstock.service.local.ports import free_port
from tests.workers.station import SHARED_MEMORY, alive, until
from workers.triton.installation import TritonMissing, locate

ECHO_CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "x" data_type: TYPE_FP32 dims: 1 }
"""
ECHO_MODEL = """
class TritonPythonModel:
    def execute(self, requests):
        return []
"""


class Launched:
    """A launcher that the test ends in its own way."""

    def __init__(self, folder: Path, *before: str) -> None:
        entry = folder / "echo" / "1"
        entry.mkdir(parents=True)
        (entry.parent / "config.pbtxt").write_text(ECHO_CONFIG)
        (entry / "model.py").write_text(ECHO_MODEL)
        endpoint = f"127.0.0.1:{free_port()}"
        self.client = InferenceServerClient(endpoint)
        self.child = subprocess.Popen(
            [*before, sys.executable, "-m", "workers.triton"],
            env={
                **os.environ,
                "PENSTOCK_TRITON_LISTEN": endpoint,
                "PENSTOCK_TRITON_MODEL_REPOSITORY": str(folder),
                "PENSTOCK_TRITON_FIRST_RESTART_SECONDS": "0.1",
            },
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    async def load(self) -> list[psutil.Process]:
        """Waits until it serves, loads a model; returns every process it now consists of."""
        await until(self.live)
        await self.client.load_model("echo")
        child = psutil.Process(self.child.pid)
        processes = [child, *child.children(recursive=True)]
        commands = [" ".join(process.cmdline()) for process in processes]
        assert sum("tritonserver --" in command for command in commands) == 1
        assert sum("python_backend_stub" in command for command in commands) == 1
        assert self.regions(processes)
        return processes

    async def live(self) -> bool:
        try:
            return bool(await self.client.is_server_live(client_timeout=1))
        except InferenceServerException:
            return False

    @staticmethod
    def regions(processes: list[psutil.Process]) -> list[Path]:
        """Shared memory that launchers among the processes have made."""
        return [
            path for p in processes for path in sorted(SHARED_MEMORY.glob(f"penstock_{p.pid}_*"))
        ]


@pytest.fixture
async def launched(tmp_path: Path) -> AsyncIterator[Launched]:
    launched = Launched(tmp_path)
    yield launched
    launched.child.kill()
    launched.child.wait()
    await launched.client.close()


async def nothing_is_left(processes: list[psutil.Process]) -> None:
    async def gone() -> bool:
        return not alive(processes) and not Launched.regions(processes)

    await until(gone)


async def test_sigterm_ends_everything(launched: Launched) -> None:
    processes = await launched.load()
    launched.child.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(launched.child.wait, 10) == 0
    assert not alive(processes)
    assert not Launched.regions(processes)


async def test_a_killed_launcher_leaves_nothing_behind(launched: Launched) -> None:
    processes = await launched.load()
    launched.child.kill()
    await nothing_is_left(processes)


async def test_a_killed_server_takes_its_models_along_and_another_comes(
    launched: Launched,
) -> None:
    launcher, *group = await launched.load()
    server = next(p for p in group if "tritonserver" in p.name())
    regions = Launched.regions([launcher])
    server.kill()
    await until(launched.live)
    assert not alive(group)
    assert not any(path.exists() for path in regions)
    await launched.load()


async def test_a_launcher_without_its_parent_ends(tmp_path: Path) -> None:
    program = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    launched = Launched(tmp_path, sys.executable, "-c", program)
    processes = await launched.load()
    launched.child.kill()
    launched.child.wait()
    await nothing_is_left(processes)
    await launched.client.close()


def test_the_stub_is_put_beside_the_backend_once_by_however_many(tmp_path: Path) -> None:
    wheel = Path(sys.prefix) / "triton"
    server = "pytriton/tritonserver"
    for part in (f"{server}/backends/python", f"{server}/python_backend_stubs"):
        shutil.copytree(wheel / part, tmp_path / part)
    (tmp_path / server / "bin").mkdir()
    (tmp_path / server / "bin" / "tritonserver").write_bytes(b"")
    (tmp_path / server / "bin" / "tritonserver").chmod(0o644)
    before = files(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: locate(str(tmp_path)), range(8)))
    assert len(set(found)) == 1
    stub = found[0].backends / "python" / "triton_python_backend_stub"
    assert os.access(stub, os.X_OK)
    assert os.access(found[0].binary, os.X_OK)
    made = files(tmp_path) - before
    assert {path.parent for path in made} == {stub.parent}, "leftovers, or the wheel was changed"


def test_the_containers_layout_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tritonserver").write_bytes(b"")
    found = locate(str(tmp_path))
    assert (found.binary, found.backends) == (
        tmp_path / "bin" / "tritonserver",
        tmp_path / "backends",
    )


def test_where_there_is_no_triton_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(TritonMissing, match=str(tmp_path)):
        locate(str(tmp_path))


def test_models_get_no_secrets_and_our_python(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tritonserver").write_bytes(b"")
    inherited = {
        "PATH": "/usr/bin",
        "PYTHONPATH": "/elsewhere",
        "PENSTOCK_GATEWAY_KEY_PEPPER": "secret",
        "PENSTOCK_WORKER_CONTROL_REDIS_URL": "redis://:secret@host",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    made = locate(str(tmp_path)).environment(inherited, stub_threads=2)
    assert "secret" not in str(made)
    assert made["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert made["PYTHONPATH"] == f"{Path(__file__).parents[2]}:/elsewhere"
    assert (made["OMP_NUM_THREADS"], made["CUDA_VISIBLE_DEVICES"]) == ("2", "1")
    assert made["HF_HUB_OFFLINE"] == made["TRANSFORMERS_OFFLINE"] == "1"


def files(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file()}
