"""Each check notices the real thing missing, and says the line that mends it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.api.models.v1 import models_pb2 as models
from penstock.cli import doctor
from tests.cli.conftest import Run
from tests.client.scripted import Scripted

SCRIPT = doctor.__file__


def examined(*, shell_before: str = "", **environment: str) -> tuple[int, dict[str, Any]]:
    """Runs the doctor as a newcomer does, without the source tree's packages; its status."""
    command = f'{shell_before} exec "{sys.executable}" -I -S "{SCRIPT}" --json'
    result = subprocess.run(
        ["sh", "-c", command],
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stderr == ""
    checks = json.loads(result.stdout)["checks"]
    return result.returncode, {check["name"]: check for check in checks}


def test_it_runs_with_the_standard_library_alone() -> None:
    status, checks = examined()
    assert set(checks) >= {"system", "glibc", "python", "make", "shared-memory", "disk", "port"}
    assert status == int(any(check["status"] == "missing" for check in checks.values()))


def test_a_low_limit_of_open_files_is_noticed() -> None:
    status, checks = examined(shell_before="ulimit -S -n 512;")
    assert status == 1
    assert checks["open-files"]["status"] == "missing"
    assert "4096" in checks["open-files"]["mend"]


def test_a_path_without_make_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    status, checks = examined(PATH=str(tmp_path))
    assert status == 1
    assert checks["make"]["status"] == "missing"
    assert checks["make"]["mend"].endswith("apt-get install -y make")


def test_a_taken_port_is_only_a_warning() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = doctor.check_port(taken.getsockname()[1])
    assert found.status == doctor.WARNING
    assert "another port" in found.detail


def test_a_full_disk_and_small_shared_memory_are_noticed(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert doctor.check_disk(str(tmp_path), 2 * free, 3 * free).status == doctor.MISSING
    assert doctor.check_disk(str(tmp_path), 1, 2 * free).status == doctor.WARNING
    assert doctor.check_disk(str(tmp_path), 1, 1).status == doctor.OK
    small = doctor.check_shared_memory(str(tmp_path), needed=2 * free)
    assert small.status == doctor.MISSING
    assert "remount" in small.mend
    assert doctor.check_shared_memory("/no/such/mount").status == doctor.MISSING


def test_the_shared_memory_of_a_small_container_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = shutil.disk_usage

    def small_shared_memory(folder: str) -> Any:
        found = measure(folder)
        return found._replace(free=8 << 20) if folder == doctor.SHARED_MEMORY else found

    monkeypatch.setattr(shutil, "disk_usage", small_shared_memory)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    assert doctor.main() == 1
    told = capsys.readouterr().out
    assert "MISSING  shared-memory  8 MiB free" in told
    assert "--shm-size=1g" in told


def test_another_python_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "PYTHON", (3, 99))
    assert (
        doctor.check_python()
        .mend.split("&& ")[-1]
        .endswith("python3.99 python3.99-venv libpython3.99")
    )
    (tmp_path / "python3.99").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_python().mend == "make PYTHON=python3.99 setup"


def test_an_old_glibc_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_glibc().status == doctor.OK
    monkeypatch.setattr(doctor, "GLIBC", (9, 0))
    assert doctor.check_glibc().status == doctor.MISSING


def test_a_python_without_ensurepip_is_noticed(tmp_path: Path) -> None:
    # As Debian has it: the package is there, its contents are in another one.
    (tmp_path / "ensurepip.py").write_text("raise ImportError(name='ensurepip')")
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(Path(SCRIPT).parent)!r}];"
        "import doctor; print(doctor.check_venv())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "status='missing'" in result.stdout
    assert "-venv" in result.stdout


def test_the_file_parses_on_older_pythons() -> None:
    import ast

    ast.parse(Path(SCRIPT).read_text(), feature_version=(3, 8))


def test_the_verb_also_asks_the_gateway(
    run: Run, scripted: Scripted, environment: dict[str, str | None]
) -> None:
    answer = models.ListModelsResponse()
    scripted.behaviours["ListModels"] = lambda request, context: answer
    assert "takes the key" in run("doctor").stdout
    environment["PENSTOCK_ENDPOINT"] = "http://127.0.0.1:1"
    checks = json.loads(run("doctor", "--json").stdout)["checks"]
    assert checks[-1]["name"] == "gateway"
    assert checks[-1]["status"] == "warning"
    assert "127.0.0.1:1" in checks[-1]["detail"]
