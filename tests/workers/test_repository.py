"""What Triton is given for each kind of package, as Triton's own configuration parser reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from penstock.errors import PackageInvalid
from penstock.service.packages import Feature, ModelSpec
from workers.repository import Placement, Repository

TEXT = ModelSpec(
    name="intent",
    version="1",
    task="text-classification",
    runtime="transformers",
    weights="model.safetensors",
    labels=("a", "b", "c"),
    max_batch=32,
    instances=2,
)
TABULAR = ModelSpec(
    name="fraud",
    version="1",
    task="tabular-classification",
    runtime="onnx",
    weights="model.onnx",
    labels=("no", "yes"),
    features=(Feature(name="amount"), Feature(name="age")),
)
GENERATION = ModelSpec(
    name="teller",
    version="1",
    task="text-generation",
    runtime="transformers",
    weights="model.safetensors",
)


def entry(repository: Path, name: str) -> triton.ModelConfig:
    text = (repository / name / "config.pbtxt").read_text()
    return text_format.Parse(text, triton.ModelConfig())


def write(tmp_path: Path, spec: ModelSpec, placement: Placement | None = None) -> Path:
    package = tmp_path / "package"
    package.mkdir(exist_ok=True)
    repository = Repository(tmp_path / "repository", placement or Placement())
    repository.write("entry", package, spec)
    return tmp_path / "repository"


def test_a_row_model_is_batched_without_policies(tmp_path: Path) -> None:
    config = entry(write(tmp_path, TEXT), "entry")
    assert (config.name, config.backend, config.max_batch_size) == ("entry", "python", 32)
    assert config.HasField("dynamic_batching")
    # Any policy makes Triton's batcher miss wake-ups for half a second.
    assert config.dynamic_batching == triton.ModelDynamicBatching()
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("text", triton.TYPE_STRING, [1])
    ]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
        ("scores", triton.TYPE_FP32, [3]),
        ("tokens", triton.TYPE_INT32, [1]),
    ]
    assert not config.model_transaction_policy.decoupled


def test_the_runtime_is_told_its_package_and_how_to_run(tmp_path: Path) -> None:
    repository = write(tmp_path, TEXT, Placement(threads=3, precision="bf16"))
    parameters = entry(repository, "entry").parameters
    assert {name: parameter.string_value for name, parameter in parameters.items()} == {
        "package_dir": str(tmp_path / "package"),
        "threads": "3",
        "precision": "bf16",
    }
    shim = (repository / "entry" / "1" / "model.py").read_text()
    assert "from workers.runtimes.text_classification import TritonPythonModel" in shim


@pytest.mark.parametrize(
    ("gpus", "kind"),
    [(0, triton.ModelInstanceGroup.KIND_CPU), (2, triton.ModelInstanceGroup.KIND_GPU)],
)
def test_instances_run_where_the_machine_can(tmp_path: Path, gpus: int, kind: int) -> None:
    (group,) = entry(write(tmp_path, TEXT, Placement(gpus=gpus)), "entry").instance_group
    assert (group.kind, group.count) == (kind, 2)
    executions = Repository(tmp_path / "repository", Placement(gpus=gpus)).executions(TEXT)
    assert executions == 2 * max(1, gpus)


def test_generation_streams_and_batches_by_itself(tmp_path: Path) -> None:
    config = entry(write(tmp_path, GENERATION), "entry")
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert {i.name for i in config.input if i.optional} == {
        *("text_input", "messages", "stream", "sampling_parameters")
    }


def test_vllm_is_given_the_package_as_its_model(tmp_path: Path) -> None:
    spec = GENERATION.model_copy(update={"runtime": "vllm"})
    repository = write(tmp_path, spec)
    config = entry(repository, "entry")
    assert config.backend == "vllm"
    assert config.model_transaction_policy.decoupled
    assert config.instance_group[0].kind == triton.ModelInstanceGroup.KIND_MODEL
    arguments = json.loads((repository / "entry" / "1" / "model.json").read_text())
    assert arguments["model"] == str(tmp_path / "package")
    assert not (repository / "entry" / "1" / "model.py").exists()


OWN = """
name: "whatever"
backend: "onnxruntime"
max_batch_size: 64
input { name: "features" data_type: TYPE_FP32 dims: 2 }
output { name: "scores" data_type: TYPE_FP32 dims: 2 }
"""


def own_entry(tmp_path: Path, config: str) -> Path:
    version = tmp_path / "package" / "triton" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"onnx")
    (version.parent / "config.pbtxt").write_text(config)
    return write(tmp_path, TABULAR.model_copy(update={"runtime": "triton"}))


def test_a_package_may_bring_its_own_entry_for_another_backend(tmp_path: Path) -> None:
    repository = own_entry(tmp_path, OWN)
    config = entry(repository, "entry")
    assert (config.name, config.backend) == ("entry", "onnxruntime")
    assert (repository / "entry" / "1" / "model.onnx").read_bytes() == b"onnx"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (OWN.replace('"scores"', '"probabilities"'), "lacks the tensor scores"),
        (OWN.replace("TYPE_FP32", "TYPE_FP64", 1), "lacks the tensor features"),
        (OWN.replace("64", "8", 1), "max_batch_size"),
        (OWN + 'default_model_filename: "../../secret"', "leaves the package"),
        ("gibberish {", "not a model configuration"),
    ],
)
def test_an_own_entry_that_does_not_do_the_task_is_refused(
    tmp_path: Path, config: str, reason: str
) -> None:
    with pytest.raises(PackageInvalid, match=reason):
        own_entry(tmp_path, config)


def test_an_entry_is_recognised_only_while_it_is_the_same(tmp_path: Path) -> None:
    write(tmp_path, TEXT)
    package = tmp_path / "package"
    repository = Repository(tmp_path / "repository", Placement())
    assert repository.describes("entry", package, TEXT)
    assert not repository.describes("entry", tmp_path / "other", TEXT)
    assert not repository.describes("other", package, TEXT)
    changed = TEXT.model_copy(update={"max_batch": 8})
    assert not repository.describes("entry", package, changed)
    assert not Repository(tmp_path / "repository", Placement(threads=2)).describes(
        "entry", package, TEXT
    )
    repository.remove("entry")
    assert not repository.describes("entry", package, TEXT)
