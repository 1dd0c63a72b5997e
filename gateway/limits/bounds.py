"""What a call can use at most, before it runs, and what a model's answer says it has used."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

from gateway.tensors import Tensor, read_bytes, read_ints
from penstock.api.types.v1 import metadata_pb2 as pb
from penstock.service.packages import ModelSpec
from penstock.service.signatures import GENERATION

SPECIAL_TOKENS = 2
"""What a tokenizer adds to a text. A token of its own covers a byte at least."""
TEMPLATE_TOKENS = 64
"""What a chat template adds around all messages; around each it adds less than JSON does."""

_LENGTH = struct.Struct("<I")


def upper_bound(spec: ModelSpec, rows: int, inputs: Sequence[Tensor]) -> pb.Usage:
    """What running the inputs can use, in the unit of the model's task."""
    task = spec.task
    if task == GENERATION:
        return _generation(spec, inputs)
    if task.startswith("tabular-"):
        return pb.Usage(input_units=rows, unit=pb.USAGE_UNIT_ROW)
    if task in ("image-classification", "object-detection"):
        return pb.Usage(input_units=rows, unit=pb.USAGE_UNIT_IMAGE)
    tokens = _text_tokens(inputs[0].data, rows, spec.max_tokens)
    return pb.Usage(input_units=tokens, unit=pb.USAGE_UNIT_TOKEN)


def measured(spec: ModelSpec, rows: int, outputs: Mapping[str, Tensor]) -> pb.Usage:
    """What an answer in one message says it has used."""
    tokens = outputs.get("tokens")
    if tokens is not None:
        return pb.Usage(input_units=sum(read_ints(tokens)), unit=pb.USAGE_UNIT_TOKEN)
    tabular = spec.task.startswith("tabular-")
    return pb.Usage(input_units=rows, unit=pb.USAGE_UNIT_ROW if tabular else pb.USAGE_UNIT_IMAGE)


def _text_tokens(data: bytes, rows: int, max_tokens: int) -> int:
    # Layout: gateway/tensors.py. Read in place: it is done for every limited call.
    if rows == 1 or not max_tokens:
        tokens = len(data) - rows * (_LENGTH.size - SPECIAL_TOKENS)
        return min(tokens, max_tokens) if max_tokens else tokens
    at = total = 0
    while at < len(data):
        length: int = _LENGTH.unpack_from(data, at)[0]
        total += min(length + SPECIAL_TOKENS, max_tokens)
        at += _LENGTH.size + length
    return total


def _generation(spec: ModelSpec, inputs: Sequence[Tensor]) -> pb.Usage:
    given = {
        tensor.name: read_bytes(tensor)[0]
        for tensor in inputs
        if tensor.name in ("text_input", "messages", "sampling_parameters")
    }
    prompt = len(given.get("text_input", b"")) + SPECIAL_TOKENS
    if "messages" in given:
        prompt += len(given["messages"]) + TEMPLATE_TOKENS
    asked = json.loads(given.get("sampling_parameters") or b"{}").get("max_tokens")
    new = asked if isinstance(asked, int) else spec.generation.default_max_tokens
    if spec.max_tokens:
        # The prompt and its continuation share the model's context.
        prompt = min(prompt, spec.max_tokens)
        new = min(new, spec.max_tokens)
    return pb.Usage(input_units=prompt, output_units=new, unit=pb.USAGE_UNIT_TOKEN)
