"""The demo models as a real tritonserver serves them, seen from a client beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from penstock.service.packages import ModelSpec, read_spec, triton_name
from penstock.service.signatures import signature

Outputs = dict[str, NDArray[Any]]


class ServedModels:
    """Calls version 1 of each demo model without a gateway in between."""

    def __init__(self, client: InferenceServerClient, artifacts: Path) -> None:
        self._client = client
        self._artifacts = artifacts

    def package(self, model: str) -> Path:
        """Where the model's package lies."""
        return self._artifacts / model

    def spec(self, model: str) -> ModelSpec:
        """What its model.yaml says."""
        return read_spec(self.package(model))

    async def infer(self, model: str, rows: Sequence[Any] | NDArray[Any]) -> Outputs:
        """One request of any number of rows: texts or images as bytes, or rows of features."""
        spec = self.spec(model)
        taken = signature(spec).inputs[0]
        if taken.datatype == "BYTES":
            array = np.array(rows, dtype=np.object_).reshape(-1, 1)
        else:
            array = np.asarray(rows, dtype=np.float32)
        tensor = InferInput(taken.name, list(array.shape), taken.datatype)
        tensor.set_data_from_numpy(array)
        result = await self._client.infer(triton_name(model, spec.version), [tensor])
        outputs = {}
        for output in signature(spec).outputs:
            outputs[output.name] = result.as_numpy(output.name)
            assert outputs[output.name].shape == (len(array), *output.shape)
        return outputs

    async def infer_each(
        self, model: str, requests: Sequence[Sequence[Any] | NDArray[Any]]
    ) -> list[Outputs | InferenceServerException]:
        """Many requests at once, so that Triton merges what waits; answers in order."""
        answers = await asyncio.gather(
            *(self.infer(model, rows) for rows in requests), return_exceptions=True
        )
        return [answer_or_refusal(answer) for answer in answers]

    async def infer_raw(self, model: str, content: bytes) -> None:
        """One row of a BYTES input with any bytes where the encoded tensor should be."""
        taken = signature(self.spec(model)).inputs[0]
        tensor = InferInput(taken.name, [1, 1], taken.datatype)
        tensor.set_data_from_numpy(np.array([[b""]], dtype=np.object_))
        tensor._raw_content = content
        await self._client.infer(triton_name(model, self.spec(model).version), [tensor])

    async def largest_merge(self, model: str) -> int:
        """The most rows that Triton ran in one execution so far."""
        name = triton_name(model, self.spec(model).version)
        statistics = await self._client.get_inference_statistics(name)
        return max(int(batch.batch_size) for batch in statistics.model_stats[0].batch_stats)


def answer_or_refusal(answer: Outputs | BaseException) -> Outputs | InferenceServerException:
    """Raises whatever else came back."""
    if isinstance(answer, BaseException) and not isinstance(answer, InferenceServerException):
        raise answer
    return answer


def refusal(error: object) -> dict[str, str]:
    """What a runtime's refusal tells the gateway."""
    assert isinstance(error, InferenceServerException)
    assert "INVALID_ARGUMENT" in str(error.status())
    text = str(error.message())
    assert text.startswith("PENSTOCK "), text
    content: dict[str, str] = json.loads(text.removeprefix("PENSTOCK "))
    return content
