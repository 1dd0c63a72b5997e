"""Finds objects in images with any checkpoint that AutoModelForObjectDetection loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForObjectDetection

from workers.runtimes.images import ImageReader, decode_image, equal_shapes
from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Outputs
from workers.runtimes.torch_session import WEIGHTS, TorchSession
from workers.runtimes.triton_model import RowsTritonModel

LOWEST_SCORE = 0.05
"""Detections below it are noise in every model served so far; callers ask for a higher bar."""


@dataclass(frozen=True)
class Picture:
    """One decoded image: the model's inputs and the size its boxes refer to, in pixels."""

    inputs: dict[str, torch.Tensor]
    width: int
    height: int


class ObjectDetector:
    """Images to ``detections`` BYTES [1]: JSON with the size and the boxes, best first."""

    def __init__(self, launch: Launch) -> None:
        self._session = TorchSession(launch)
        model: Any = AutoModelForObjectDetection.from_pretrained(launch.package, **WEIGHTS)
        self._images = ImageReader(launch)
        self._names: dict[int, str] = model.config.id2label
        unknown = set(launch.spec.labels) - set(self._names.values())
        if unknown:
            raise ValueError(f"the model knows no label {sorted(unknown)}")
        self._model = self._session.place(model)

    def read(self, value: object) -> Picture:
        """The model's inputs for one encoded image. Raises Refusal."""
        image = decode_image(value)
        return Picture(self._images.pixels(image), image.width, image.height)

    def run(self, rows: Sequence[Picture]) -> Outputs:
        """Detections in the order of the rows."""
        detections = np.empty((len(rows), 1), np.object_)
        with self._session.inference():
            batches = equal_shapes([picture.inputs for picture in rows], self._session.images)
            for group, batch in batches:
                outputs = self._model(**self._session.move(batch))
                found = self._images.processor.post_process_object_detection(
                    outputs,
                    threshold=LOWEST_SCORE,
                    target_sizes=[(rows[row].height, rows[row].width) for row in group],
                )
                for row, objects in zip(group, found, strict=True):
                    detections[row, 0] = self._json(rows[row], objects)
        return {"detections": detections}

    def _json(self, picture: Picture, objects: Mapping[str, torch.Tensor]) -> bytes:
        scores = objects["scores"].float().cpu()
        boxes = objects["boxes"].float().cpu().tolist()
        labels = objects["labels"].cpu().tolist()
        edges = (picture.width, picture.height) * 2
        content = {
            "width": picture.width,
            "height": picture.height,
            "detections": [
                {
                    "box": [
                        min(max(at, 0.0), edge) for at, edge in zip(boxes[i], edges, strict=True)
                    ],
                    "label": self._names[labels[i]],
                    "score": float(scores[i]),
                }
                for i in scores.argsort(descending=True).tolist()
            ],
        }
        return json.dumps(content).encode()


class TritonPythonModel(RowsTritonModel):
    """Triton's entry point."""

    input_name = "image"
    model_class = ObjectDetector
