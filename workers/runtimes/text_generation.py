"""Triton runtime of text generation: a decoupled model whose answers the engine streams.

Inputs: text_input BYTES [1] or messages BYTES [1] (JSON, wins); optional stream BOOL [1] (true
unless given) and sampling_parameters BYTES [1] (JSON). Each message of the answer: text_output
BYTES [1], finish_reason BYTES [1] (empty until the last), num_input_tokens and num_output_tokens
UINT32 [1] (totals so far).
"""

from __future__ import annotations

import logging
from typing import Any

import triton_python_backend_utils as pb_utils
from transformers import AutoTokenizer

from workers.runtimes.generation.engine import Engine, Limits
from workers.runtimes.generation.language_model import LanguageModel
from workers.runtimes.generation.requests import RawRequest, RequestReader
from workers.runtimes.generation.triton_caller import TritonCaller
from workers.runtimes.generation.triton_figures import TritonFigures
from workers.runtimes.launch import Launch
from workers.runtimes.refusals import Refusal

_WAITING_A_ROW = 4
"""Sequences that may wait for each one that runs."""


class TritonPythonModel:
    """What Triton calls; ``execute`` only reads and queues."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the package named in config.pbtxt and starts the engine."""
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        launch = Launch.from_triton(args)
        rows = launch.spec.generation.max_sequences
        model = LanguageModel.load(launch)
        self._reader = RequestReader(
            AutoTokenizer.from_pretrained(launch.package, local_files_only=True),
            model.generation_config,
            model.context_tokens,
            launch.spec.generation.default_max_tokens,
        )
        limits = Limits(max_sequences=rows, max_waiting=rows * _WAITING_A_ROW)
        self._figures = TritonFigures(args["model_name"])
        self._engine = Engine(model, limits, self._figures)
        self._engine.start()

    def execute(self, requests: list[Any]) -> None:
        """Queues the requests, or answers those that cannot be served with a refusal."""
        for request in requests:
            caller = TritonCaller(request.get_response_sender())
            try:
                sequence = self._reader.read(_raw(request), caller)
            except Refusal as refusal:
                caller.refuse(refusal)
            except Exception:
                logging.exception("a generation request could not be read")
                caller.fail("INTERNAL", "the request could not be read")
            else:
                self._engine.submit(sequence)

    def finalize(self) -> None:
        """Ends open answers with an error and stops the engine."""
        self._engine.close()
        self._figures.close()


def _raw(request: Any) -> RawRequest:
    """Copies the inputs: their memory is Triton's and goes when the request does."""
    stream = pb_utils.get_input_tensor_by_name(request, "stream")
    return RawRequest(
        text=_bytes(request, "text_input"),
        messages=_bytes(request, "messages"),
        sampling=_bytes(request, "sampling_parameters"),
        stream=True if stream is None else bool(stream.as_numpy().reshape(-1)[0]),
        timeout_seconds=request.timeout() / 1e6,
    )


def _bytes(request: Any, name: str) -> bytes | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else bytes(tensor.as_numpy().reshape(-1)[0])
