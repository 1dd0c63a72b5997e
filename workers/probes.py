"""The smallest real input of each task, to warm a model up and to see that it still answers."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image
from tritonclient.grpc import InferInput

from penstock.service.packages import ModelSpec
from penstock.service.signatures import signature

_TEXT = "Is anybody there?"
_IMAGE_PIXELS = 64


def probe_inputs(spec: ModelSpec) -> list[Any]:
    """One row (a one-token request for generation) as tritonclient's InferInput."""
    if signature(spec).streams:
        sampling = json.dumps({"max_tokens": 1, "temperature": 0})
        return [_bytes("text_input", [1], _TEXT), _bytes("sampling_parameters", [1], sampling)]
    if spec.task.startswith("tabular-"):
        features = InferInput("features", [1, len(spec.features)], "FP32")
        features.set_data_from_numpy(np.zeros((1, len(spec.features)), np.float32))
        return [features]
    if signature(spec).inputs[0].name == "image":
        return [_bytes("image", [1, 1], _picture())]
    return [_bytes("text", [1, 1], _TEXT)]


def _bytes(name: str, shape: list[int], content: str | bytes) -> Any:
    raw = content.encode() if isinstance(content, str) else content
    tensor = InferInput(name, shape, "BYTES")
    tensor.set_data_from_numpy(np.array([raw], dtype=object).reshape(shape))
    return tensor


def _picture() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (_IMAGE_PIXELS, _IMAGE_PIXELS), (127, 127, 127)).save(target, "PNG")
    return target.getvalue()
