"""The Triton python-backend side of every row-by-row runtime: requests in, responses out."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from workers.runtimes.launch import Launch
from workers.runtimes.merged_requests import Answer, Answerer, Array, RowModel, RunFailed
from workers.runtimes.refusals import Refusal


class PackagedModel(RowModel[Any], Protocol):
    """A row model that loads itself from a package."""

    def __init__(self, launch: Launch) -> None: ...


class RowsTritonModel:
    """A model that Triton batches; each runtime names its input tensor and its model class."""

    input_name: ClassVar[str]
    model_class: ClassVar[type[PackagedModel]]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the package; an exception here fails the load, and its text goes to the log."""
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        # Exists only inside Triton's stub process, which puts it on the path.
        self._backend = importlib.import_module("triton_python_backend_utils")
        self._answerer = Answerer(self.model_class(Launch.from_triton(args)))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers everything that Triton merged, in order."""
        answers = self._answerer.answer([self._rows(request) for request in requests])
        return [self._response(answer) for answer in answers]

    def _rows(self, request: Any) -> Array:
        tensor = self._backend.get_input_tensor_by_name(request, self.input_name)
        array: Array = tensor.as_numpy()
        # A BYTES input has one element a row, [rows, 1]; a row is that element, not an array.
        return array[:, 0] if array.dtype == object else array

    def _response(self, answer: Answer) -> Any:
        backend = self._backend
        if isinstance(answer, Refusal):
            error = backend.TritonError(answer.text, backend.TritonError.INVALID_ARG)
            return backend.InferenceResponse(error=error)
        if isinstance(answer, RunFailed):
            error = backend.TritonError(str(answer), backend.TritonError.INTERNAL)
            return backend.InferenceResponse(error=error)
        tensors = [backend.Tensor(name, array) for name, array in answer.items()]
        return backend.InferenceResponse(output_tensors=tensors)
