"""Generate: a prompt or a chat to the inputs of a streaming model, and its messages back.

Our own runtime has the inputs and outputs of Triton's vLLM backend; that backend gives some outputs
only when asked, and counts tokens message by message where ours gives totals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.dispatch import Answer
from gateway.tensors import Tensor, bytes_tensor, read_bytes, read_ints
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.packages import ModelSpec
from penstock.service.signatures import GENERATION

TASKS = frozenset({GENERATION})

_ROLES = {
    pb.CHAT_ROLE_SYSTEM: "system",
    pb.CHAT_ROLE_USER: "user",
    pb.CHAT_ROLE_ASSISTANT: "assistant",
}
_FINISH_REASONS: Mapping[bytes, pb.FinishReason.ValueType] = {
    b"": pb.FINISH_REASON_UNSPECIFIED,
    b"None": pb.FINISH_REASON_UNSPECIFIED,
    b"stop": pb.FINISH_REASON_STOP,
    b"length": pb.FINISH_REASON_LENGTH,
}
_ASKED_OF_VLLM = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")
_TRUE = b"\x01"


class Step(NamedTuple):
    """One message of a generation; the counts are totals so far."""

    delta: str
    finish_reason: pb.FinishReason.ValueType
    tokens_read: int
    tokens_written: int


class StepReader:
    """Reads the messages of one generation."""

    def __init__(self, spec: ModelSpec) -> None:
        self._counts_each_message = spec.runtime == "vllm"
        self._written = 0

    def read(self, answer: Answer) -> Step:
        """The next message; raises KeyError when it lacks what every message has."""
        outputs = answer.outputs
        counted = read_ints(outputs["num_output_tokens"])[0]
        self._written = self._written + counted if self._counts_each_message else counted
        return Step(
            read_bytes(outputs["text_output"])[0].decode(),
            _FINISH_REASONS[read_bytes(outputs["finish_reason"])[0]],
            read_ints(outputs["num_input_tokens"])[0],
            self._written,
        )


def generation_tensors(request: pb.GenerateRequest, spec: ModelSpec) -> list[Tensor]:
    """The inputs of a text-generation model; what the request leaves out is the model's choice."""
    inputs = [
        bytes_tensor("text_input", [request.prompt.encode()]),
        Tensor("stream", "BOOL", (1,), _TRUE),
        bytes_tensor("sampling_parameters", [_sampling(request.parameters)]),
    ]
    if request.messages:
        chat = [{"role": _ROLES[m.role], "content": m.content} for m in request.messages]
        inputs.append(bytes_tensor("messages", [json.dumps(chat).encode()]))
    return reporting(inputs, spec)


def reporting(inputs: Sequence[Tensor], spec: ModelSpec) -> list[Tensor]:
    """The inputs, with which the runtime will say why it stopped and what it used."""
    asked = _ASKED_OF_VLLM if spec.runtime == "vllm" else ()
    kept = [tensor for tensor in inputs if tensor.name not in asked]
    return kept + [Tensor(name, "BOOL", (1,), _TRUE) for name in asked]


def _sampling(given: pb.GenerationParameters) -> bytes:
    chosen: dict[str, int | float | list[str]] = {
        name: getattr(given, name)
        for name in ("max_tokens", "temperature", "top_p", "top_k", "seed")
        if given.HasField(name)
    }
    if given.stop:
        chosen["stop"] = list(given.stop)
    return json.dumps(chosen).encode()
