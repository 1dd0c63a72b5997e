"""Answers as a replica would give them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from gateway.dispatch import Answer
from gateway.tensors import Tensor, bytes_tensor


def answer(*outputs: Tensor) -> Answer:
    """An answer with these outputs."""
    return Answer({tensor.name: tensor for tensor in outputs}, "replica", "here", 0.001, 0.002)


def floats(name: str, rows: Sequence[Sequence[float]]) -> Tensor:
    """An FP32 output."""
    data = np.array(rows, dtype="<f4")
    return Tensor(name, "FP32", data.shape[1:], data.tobytes())


def ints(name: str, values: Sequence[int], datatype: str = "INT32") -> Tensor:
    """An integer output of one element a row."""
    kind = "<i4" if datatype == "INT32" else "<u4"
    return Tensor(name, datatype, (1,), np.array(values, dtype=kind).tobytes())


def documents(name: str, values: Sequence[object]) -> Tensor:
    """A BYTES output of one JSON document a row."""
    return bytes_tensor(name, [json.dumps(value).encode() for value in values])
