"""The wheel is the client alone: what a backend service installs, and what it depends on."""

from __future__ import annotations

import email
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from penstock.cli.app import SERVER_VERBS

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Installed:
    """The wheel in a virtual environment that holds what the wheel asks for, and nothing else."""

    wheel: Path
    venv: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment, far from the source tree."""
        return subprocess.run(
            [str(self.venv / "bin" / command[0]), *command[1:]],
            cwd=self.venv,
            env={"PATH": os.environ["PATH"], "PENSTOCK_CONFIG": "/nowhere", "HOME": str(self.venv)},
            capture_output=True,
            text=True,
            timeout=30,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    scratch = tmp_path_factory.mktemp("wheel")
    wheel = built(scratch)
    venv = scratch / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    for name in asked_for(wheel):
        link_distribution(name, site)
    command = ["-m", "pip", "--quiet", "--python", str(venv / "bin" / "python"), "install"]
    subprocess.run([sys.executable, *command, "--no-deps", "--no-index", str(wheel)], check=True)
    return Installed(wheel, venv)


def built(scratch: Path) -> Path:
    """The wheel, from a copy: building writes into the tree that it builds from."""
    tree = scratch / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for package in ("penstock", "gateway", "workers", "scheduler"):
        shutil.copytree(
            ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(scratch), "."],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (wheel,) = scratch.glob("*.whl")
    return wheel


def asked_for(wheel: Path) -> set[str]:
    """Every distribution that the wheel's own metadata asks for, directly or not."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(path))
    found: set[str] = set()
    pending = list(applicable(metadata.get_all("Requires-Dist", [])))
    while pending:
        name = pending.pop().lower()
        if name not in found:
            found.add(name)
            pending += applicable(importlib.metadata.requires(name) or [])
    return found


def applicable(requirements: list[str]) -> Iterator[str]:
    """The names of those that hold here without any extra."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def link_distribution(name: str, site: Path) -> None:
    """Makes a distribution of this environment importable in the other one."""
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
        target = Path(str(distribution.locate_file(top)))
        if top != "__pycache__" and target.exists() and not (site / top).exists():
            (site / top).symlink_to(target)


def test_it_holds_the_client_alone(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"penstock"}
    assert not [name for name in names if name.startswith("penstock/service")]
    assert "penstock/py.typed" in names
    assert "penstock/api/inference/v1/inference_pb2.pyi" in names


def test_its_dependencies_are_light(installed: Installed) -> None:
    heavy = {"torch", "numpy", "redis", "tritonclient", "transformers", "pillow"}
    assert not heavy & asked_for(installed.wheel)


def test_it_imports_with_what_it_asks_for(installed: Installed) -> None:
    program = (
        "import sys, penstock, penstock.errors, penstock.cli.app\n"
        "from penstock import AsyncClient, Client\n"
        "Client('http://127.0.0.1:1').close()\n"
        "assert 'site-packages' in penstock.__file__\n"
        "foreign = {'torch', 'numpy', 'gateway', 'workers', 'scheduler', 'redis'}\n"
        "assert not foreign & set(sys.modules)\n"
        "import importlib.util\n"
        "found = [n for n in ('penstock.service', *foreign) if importlib.util.find_spec(n)]\n"
        "assert not found, found\n"
    )
    result = installed.run("python", "-c", program)
    assert result.returncode == 0, result.stderr


def test_importing_it_is_cheap(installed: Installed) -> None:
    result = installed.run(
        "python", "-c", "import penstock, sys; assert not {'grpc', 'typer'} & set(sys.modules)"
    )
    assert result.returncode == 0, result.stderr


def test_its_command_knows_the_verbs(installed: Installed) -> None:
    result = installed.run("penstock", "--help")
    assert result.returncode == 0
    assert {"classify", "tenants", "keys", *SERVER_VERBS} <= set(result.stdout.split())
    assert installed.run("penstock", "--version").stdout.strip() in installed.wheel.name


@pytest.mark.parametrize("verb", ["up", "bootstrap", "models register"])
def test_server_verbs_say_that_they_need_a_source_tree(installed: Installed, verb: str) -> None:
    result = installed.run("penstock", *verb.split(), "--port", "8400", "more")
    assert result.returncode == 2
    assert "source tree" in result.stderr
    assert "Traceback" not in result.stderr


def test_its_doctor_only_asks_for_a_gateway(installed: Installed) -> None:
    result = installed.run("penstock", "doctor")
    assert result.returncode == 0
    assert "PENSTOCK_ENDPOINT" in result.stdout
    assert "libpython" not in result.stdout
