"""Scores rows of features with an ONNX classifier, as skl2onnx and others export them."""

from __future__ import annotations

from collections.abc import Sequence

from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Outputs
from workers.runtimes.tabular import Floats, TabularModel
from workers.runtimes.triton_model import RowsTritonModel


class TabularClassifier:
    """Rows of features to ``scores`` FP32 [labels]."""

    def __init__(self, launch: Launch) -> None:
        self._model = TabularModel(launch, columns=[len(launch.spec.labels)])
        self.read = self._model.read

    def run(self, rows: Sequence[Floats]) -> Outputs:
        """Probabilities in the order of the rows."""
        return {"scores": self._model.scores(rows)}


class TritonPythonModel(RowsTritonModel):
    """Triton's entry point."""

    input_name = "features"
    model_class = TabularClassifier
