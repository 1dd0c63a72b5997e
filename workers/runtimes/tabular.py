"""Runs tabular ONNX models for both tabular runtimes, without torch in the process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from penstock.service.packages import Feature
from workers.runtimes.launch import Launch
from workers.runtimes.refusals import Refusal

Floats = NDArray[np.float32]


class TabularModel:
    """An ONNX model of one input FP32 [rows, features] and a float output [rows, columns]."""

    def __init__(self, launch: Launch, columns: Sequence[int]) -> None:
        """``columns`` lists the acceptable widths of the output that is the answer.

        Raises ValueError when the model has no such output.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = launch.threads
        options.inter_op_num_threads = 1
        available = onnxruntime.get_available_providers()
        wanted = ["CUDAExecutionProvider"] if launch.device.startswith("cuda") else []
        self._session = onnxruntime.InferenceSession(
            launch.package / launch.spec.weights,
            options,
            providers=[name for name in wanted if name in available] + ["CPUExecutionProvider"],
        )
        self._features = launch.spec.features
        self._input = self._session.get_inputs()[0].name
        self._output = self._find_output(columns)

    def read(self, value: Floats) -> Floats:
        """One row of features, checked. Raises Refusal."""
        row = np.asarray(value, np.float32)
        if row.shape != (len(self._features),):
            raise Refusal("FIELD_INVALID", "rows", f"must have {len(self._features)} features")
        for feature, number in zip(self._features, row.tolist(), strict=True):
            check_feature(feature, number)
        return row

    def scores(self, rows: Sequence[Floats]) -> Floats:
        """The model's answer FP32 [rows, columns]."""
        (answer,) = self._session.run([self._output], {self._input: np.stack(rows)})
        return np.asarray(answer, np.float32).reshape(len(rows), -1)

    def _find_output(self, columns: Sequence[int]) -> str:
        for output in self._session.get_outputs():
            if output.type == "tensor(float)" and output.shape[-1] in columns:
                return str(output.name)
        raise ValueError(f"the ONNX model has no float output with {columns} columns")


def check_feature(feature: Feature, number: float) -> None:
    """Raises Refusal unless a model may be fed this value of the feature."""
    if np.isnan(number):
        if not feature.optional:
            raise Refusal("FIELD_INVALID", "rows", f"feature {feature.name!r} is missing")
    elif np.isinf(number):
        raise Refusal("FIELD_INVALID", "rows", f"feature {feature.name!r} must be finite")
    elif feature.categories and not (number.is_integer() and 0 <= number < len(feature.categories)):
        message = f"feature {feature.name!r} must be one of {', '.join(feature.categories)}"
        raise Refusal("FIELD_INVALID", "rows", message)
