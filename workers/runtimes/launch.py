"""What Triton tells a runtime when it starts it: which package, where to run, how precisely."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.service.packages import ModelSpec, read_spec

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Launch:
    """One instance of one model package."""

    package: Path
    spec: ModelSpec
    device: str = "cpu"
    """``cpu`` or ``cuda:<index>``."""
    threads: int = 1
    """Threads inside one operator; two instances of one thread each cost less than two."""
    precision: str = "fp32"
    """``bf16`` runs the matrix products in bfloat16; the answers stay float32."""

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> Launch:
        """Reads the arguments of ``TritonPythonModel.initialize``.

        The model configuration's ``parameters`` carry ``package_dir`` and, if wanted, ``threads``
        and ``precision``. Raises ValueError for one that makes no sense, PackageInvalid for a
        package that cannot be read.
        """
        entries = json.loads(args["model_config"]).get("parameters", {})
        parameters = {name: entry["string_value"] for name, entry in entries.items()}
        package = Path(parameters["package_dir"])
        threads = int(parameters.get("threads", "1"))
        precision = parameters.get("precision", "fp32")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, not {precision!r}")
        on_gpu = args["model_instance_kind"].endswith("GPU")
        return cls(
            package=package,
            spec=read_spec(package),
            device=f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu",
            threads=threads,
            precision=precision,
        )
