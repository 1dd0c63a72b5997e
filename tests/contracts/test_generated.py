"""The committed stubs are what the contracts give, and live beside tritonclient's."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from protos.generate import GENERATED, contents, differences, replace_stubs, write_stubs
from protos.sources import ROOT, source_names

MODULES = [
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    for folder in GENERATED
    for path in sorted((ROOT / folder).rglob("*_pb2*.py"))
]


def test_the_committed_stubs_are_current() -> None:
    assert differences() == []


def test_every_contract_has_a_typed_module() -> None:
    for name in source_names():
        module = ROOT / name.replace(".proto", "_pb2.py")
        assert module.exists()
        assert module.with_suffix(".pyi").exists()
        assert (module.parent / "__init__.py").exists()


def test_stale_edited_and_missing_stubs_are_found_and_mended(tmp_path: Path) -> None:
    write_stubs(tmp_path)
    assert differences(tmp_path) == []
    usage = tmp_path / "penstock/api/usage/v1"
    (usage / "usage_pb2.py").write_text("edited = True\n")
    (usage / "usage_pb2.pyi").unlink()
    stale = tmp_path / "penstock/api/gone/v1/gone_pb2.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")

    assert differences(tmp_path) == [
        "penstock/api/gone/v1/gone_pb2.py",
        "penstock/api/usage/v1/usage_pb2.py",
        "penstock/api/usage/v1/usage_pb2.pyi",
    ]
    replace_stubs(tmp_path)
    assert differences(tmp_path) == []
    assert not (tmp_path / "penstock/api/gone").exists()


def test_stubs_of_other_peoples_protocols_are_never_generated() -> None:
    # A second registration of the same symbol stops the process that imports both.
    for path, data in contents(ROOT).items():
        if path.name.endswith("_pb2.py"):
            assert f"# source: {path.with_name(path.stem[:-4])}.proto".encode() in data
        assert b"GRPCInferenceService" not in data


def test_tritonclient_is_recent_enough() -> None:
    # Without its lower bound a resolver quietly picks a release of 2023 that imports and is wrong.
    version = importlib.metadata.version("tritonclient")
    assert tuple(int(part) for part in version.split(".")[:2]) >= (2, 73)


@pytest.mark.parametrize("triton_first", [True, False])
def test_our_stubs_and_tritonclients_load_in_one_process(triton_first: bool) -> None:
    theirs = ["tritonclient.grpc.service_pb2", "tritonclient.grpc.service_pb2_grpc"]
    assert len(MODULES) > 25
    names = [*theirs, *MODULES] if triton_first else [*MODULES, *theirs]
    program = "\n".join(f"import {name}" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
