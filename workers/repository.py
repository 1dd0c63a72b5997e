"""Writes what Triton loads: one entry a model version, config.pbtxt and version 1.

Formats: Triton's model configuration (model_config.proto) and model repository.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from penstock.errors import PackageInvalid
from penstock.service.packages import ModelSpec
from penstock.service.signatures import Signature, TensorSpec, signature

_OWN_ENTRY = "triton"
"""Where a package with runtime ``triton`` keeps its config.pbtxt and version directory."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how instances run on this machine."""

    gpus: int = 0
    """GPUs in sight; 0 runs everything on the CPU."""
    threads: int = 1
    precision: str = "fp32"


class Repository:
    """Triton's model repository; the agent owns everything in it."""

    def __init__(self, directory: Path, placement: Placement) -> None:
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._placement = placement

    def write(self, name: str, package: Path, spec: ModelSpec) -> None:
        """Writes the entry ``name``; raises PackageInvalid if the package's own does not fit."""
        entry = self._directory / name
        shutil.rmtree(entry, ignore_errors=True)
        (entry / "1").mkdir(parents=True)
        if spec.runtime == "triton":
            config = _own_config(package, spec)
            config.name = name
            (entry / "1").rmdir()
            shutil.copytree(package / _OWN_ENTRY / "1", entry / "1")
        elif spec.runtime == "vllm":
            config = self._vllm_config(name, spec)
            arguments = {"model": str(package), "disable_log_stats": True}
            (entry / "1" / "model.json").write_text(json.dumps(arguments))
        else:
            config = self._config(name, package, spec)
            module = f"workers.runtimes.{spec.task.replace('-', '_')}"
            (entry / "1" / "model.py").write_text(
                '"""Hands over to the runtime in the source tree."""\n\n'
                f"from {module} import TritonPythonModel as TritonPythonModel\n"
            )
        (entry / "config.pbtxt").write_text(text_format.MessageToString(config))

    def describes(self, name: str, package: Path, spec: ModelSpec) -> bool:
        """Whether the entry on disk is the one that ``write`` would make for our own runtimes."""
        if spec.runtime in ("triton", "vllm"):
            return False
        try:
            text = (self._directory / name / "config.pbtxt").read_text()
        except OSError:
            return False
        return text == text_format.MessageToString(self._config(name, package, spec))

    def executions(self, spec: ModelSpec) -> int:
        """How many executions of the model run side by side here."""
        if signature(spec).streams:
            return spec.generation.max_sequences
        return spec.instances * max(1, self._placement.gpus)

    def names(self) -> frozenset[str]:
        """The entries that are there."""
        return frozenset(path.name for path in self._directory.iterdir())

    def remove(self, name: str) -> None:
        """Removes the entry, if there is one."""
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def _config(self, name: str, package: Path, spec: ModelSpec) -> triton.ModelConfig:
        tensors = signature(spec)
        config = triton.ModelConfig(name=name, backend="python")
        _add_tensors(config, tensors)
        if tensors.streams:
            config.model_transaction_policy.decoupled = True
        else:
            config.max_batch_size = spec.max_batch
            # Without queue policies or priority levels: with any of them, Triton's batcher misses
            # wake-ups and a request now and then waits half a second (docs/proposals/0001).
            config.dynamic_batching.SetInParent()
        on_gpu = self._placement.gpus > 0
        config.instance_group.add(
            count=1 if tensors.streams else spec.instances,
            kind=triton.ModelInstanceGroup.KIND_GPU
            if on_gpu
            else triton.ModelInstanceGroup.KIND_CPU,
        )
        parameters = {
            "package_dir": str(package),
            "threads": str(self._placement.threads),
            "precision": self._placement.precision,
        }
        for key, value in parameters.items():
            config.parameters[key].string_value = value
        return config

    def _vllm_config(self, name: str, spec: ModelSpec) -> triton.ModelConfig:
        config = triton.ModelConfig(name=name, backend="vllm")
        _add_tensors(config, signature(spec))
        config.model_transaction_policy.decoupled = True
        config.instance_group.add(count=1, kind=triton.ModelInstanceGroup.KIND_MODEL)
        return config


def count_gpus() -> int:
    """NVIDIA GPUs that this container or machine shows."""
    return sum(1 for path in Path("/dev").iterdir() if re.fullmatch(r"nvidia\d+", path.name))


def _own_config(package: Path, spec: ModelSpec) -> triton.ModelConfig:
    """The package's own config.pbtxt, held to the tensors of its task."""
    file = f"{_OWN_ENTRY}/config.pbtxt"
    if not (package / _OWN_ENTRY / "1").is_dir():
        raise PackageInvalid(f"{_OWN_ENTRY}/1 is missing")
    try:
        config = text_format.Parse((package / file).read_text(), triton.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise PackageInvalid(f"{file} is missing or not a model configuration") from error
    if "/" in config.default_model_filename:
        raise PackageInvalid(f"{file}: default_model_filename leaves the package")
    tensors = signature(spec)
    if not tensors.streams and config.max_batch_size < spec.max_batch:
        raise PackageInvalid(f"{file}: max_batch_size is below model.yaml's max_batch")
    given = {(t.name, triton.DataType.Name(t.data_type)) for t in [*config.input, *config.output]}
    for tensor in [*tensors.inputs, *tensors.outputs]:
        if not tensor.optional and (tensor.name, _type_name(tensor)) not in given:
            raise PackageInvalid(f"{file} lacks the tensor {tensor.name} {tensor.datatype}")
    return config


def _add_tensors(config: triton.ModelConfig, tensors: Signature) -> None:
    for tensor in tensors.inputs:
        config.input.add(
            name=tensor.name,
            data_type=triton.DataType.Value(_type_name(tensor)),
            dims=tensor.shape,
            optional=tensor.optional,
        )
    for tensor in tensors.outputs:
        config.output.add(
            name=tensor.name,
            data_type=triton.DataType.Value(_type_name(tensor)),
            dims=tensor.shape,
        )


def _type_name(tensor: TensorSpec) -> str:
    return "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
