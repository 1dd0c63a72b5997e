"""Real model packages that take milliseconds to build: a softmax over three numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

from penstock.service.packages import Feature, ModelSpec, write_package

FEATURES = ("width", "height", "depth")
LABELS = ("small", "large")


def tabular_package(
    directory: Path, name: str, version: str = "1", *, gain: float = 1.0, instances: int = 1
) -> tuple[ModelSpec, str]:
    """Writes a classifier that is surer of ``large`` the more its features add up to."""
    directory.mkdir(parents=True)
    weights = np.array([[-gain, gain]] * len(FEATURES), np.float32)
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(FEATURES)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", len(LABELS)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, str(directory / "model.onnx"))
    (directory / "README.md").write_text(f"# {name}\n\nAdds up.\n")
    spec = ModelSpec(
        name=name,
        version=version,
        task="tabular-classification",
        runtime="onnx",
        weights="model.onnx",
        labels=LABELS,
        features=tuple(Feature(name=feature) for feature in FEATURES),
        max_batch=16,
        instances=instances,
    )
    return spec, write_package(directory, spec)
