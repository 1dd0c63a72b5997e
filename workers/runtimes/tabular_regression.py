"""Predicts a number for rows of features with an ONNX regressor."""

from __future__ import annotations

from collections.abc import Sequence

from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Outputs
from workers.runtimes.tabular import Floats, TabularModel
from workers.runtimes.triton_model import RowsTritonModel


class TabularRegressor:
    """Rows of features to ``value`` FP32 [1]."""

    def __init__(self, launch: Launch) -> None:
        self._model = TabularModel(launch, columns=[1])
        self.read = self._model.read

    def run(self, rows: Sequence[Floats]) -> Outputs:
        """Predictions in the order of the rows."""
        return {"value": self._model.scores(rows)}


class TritonPythonModel(RowsTritonModel):
    """Triton's entry point."""

    input_name = "features"
    model_class = TabularRegressor
