"""What Triton tells a runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workers.tiny_packages import tabular_package
from workers.runtimes.launch import Launch


def arguments(package: Path, kind: str = "CPU", **parameters: str) -> dict[str, str]:
    entries = {name: {"string_value": value} for name, value in parameters.items()}
    entries["package_dir"] = {"string_value": str(package)}
    return {
        "model_config": json.dumps({"parameters": entries}),
        "model_instance_kind": kind,
        "model_instance_device_id": "1",
    }


def test_a_package_runs_on_one_thread_of_the_cpu_unless_told_otherwise(tmp_path: Path) -> None:
    spec, _ = tabular_package(tmp_path / "sum", "sum")
    launch = Launch.from_triton(arguments(tmp_path / "sum"))
    assert launch == Launch(tmp_path / "sum", spec, device="cpu", threads=1, precision="fp32")


def test_a_gpu_instance_runs_on_its_gpu(tmp_path: Path) -> None:
    tabular_package(tmp_path / "sum", "sum")
    options = {"threads": "3", "precision": "bf16"}
    launch = Launch.from_triton(arguments(tmp_path / "sum", "GPU", **options))
    assert (launch.device, launch.threads, launch.precision) == ("cuda:1", 3, "bf16")


@pytest.mark.parametrize("options", [{"threads": "0"}, {"threads": "two"}, {"precision": "int3"}])
def test_parameters_that_make_no_sense_fail_the_load(
    tmp_path: Path, options: dict[str, str]
) -> None:
    tabular_package(tmp_path / "sum", "sum")
    with pytest.raises(ValueError, match=next(iter(options.values()))):
        Launch.from_triton(arguments(tmp_path / "sum", **options))
