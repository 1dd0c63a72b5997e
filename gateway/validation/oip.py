"""What a ModelInfer request of the Open Inference Protocol may hold, read into tensors.

The same rules as for our own messages hold for what is inside the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from struct import Struct

from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as pb

from gateway.tensors import Tensor, bytes_tensor, count_rows, read_bytes
from gateway.validation.features import check_values
from gateway.validation.fields import Violations, check_model_name, check_text, quote
from gateway.validation.images import image_fault
from gateway.validation.inference import (
    MAX_IMAGES,
    MAX_ROWS,
    check_generate,
    check_generate_fits,
)
from penstock.api.inference.v1 import inference_pb2
from penstock.errors import InvalidArgument
from penstock.service.packages import ModelSpec
from penstock.service.signatures import GENERATION, Signature, TensorSpec, signature

MAX_TEXTS = 2_048
"""Texts of one call."""
SERVED_PARAMETERS = frozenset(
    {"priority", "timeout", "traceparent", "triton_enable_empty_final_response"}
)
"""Request parameters that are not refused; a call's time is its gRPC deadline."""
LOWEST_PRIORITY = 4

_TYPED_CONTENTS = {"BOOL": "bool_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}
_ROLES = {
    "system": inference_pb2.CHAT_ROLE_SYSTEM,
    "user": inference_pb2.CHAT_ROLE_USER,
    "assistant": inference_pb2.CHAT_ROLE_ASSISTANT,
}


def check_infer(request: pb.ModelInferRequest, stream_model: str = "") -> None:
    """Checks all that needs no model, and that a stream keeps to its model, by which it is billed.

    Raises InvalidArgument.
    """
    violations = Violations()
    check_model_name(request.model_name, violations, "model_name")
    if stream_model and request.model_name != stream_model:
        violations.add("model_name", f"is not the stream's first, {stream_model!r}")
    for name in request.parameters:
        if name not in SERVED_PARAMETERS:
            violations.add("parameters", f"has {quote(name)}, which is not served here")
    if not 0 <= priority(request) <= LOWEST_PRIORITY:
        violations.add("parameters", f"priority is not between 0 and {LOWEST_PRIORITY}")
    if not request.inputs:
        violations.add("inputs", "is empty")
    for field in ("inputs", "outputs"):
        for index, tensor in enumerate(getattr(request, field)):
            if tensor.parameters:
                violations.add(f"{field}[{index}].parameters", "shared memory is not served here")
    raw = len(request.raw_input_contents)
    if raw and raw != len(request.inputs):
        violations.add(
            "raw_input_contents", f"has {raw:,} items for {len(request.inputs):,} inputs"
        )
    violations.refuse()


def priority(request: pb.ModelInferRequest) -> int:
    """The tier that the request asks for; 0 leaves it to the key."""
    if "priority" not in request.parameters:
        return 0
    given = request.parameters["priority"]
    return int(given.uint64_param or given.int64_param)


def read_inputs(request: pb.ModelInferRequest, spec: ModelSpec) -> tuple[int, list[Tensor]]:
    """The number of rows (1 for a model without a batch axis) and the inputs.

    Raises InvalidArgument for whatever the model's signature does not allow.
    """
    violations = Violations()
    known = signature(spec)
    wanted = {tensor.name: tensor for tensor in known.inputs}
    _check_names(request, wanted, known, violations)
    violations.refuse()
    rows = _rows(request, wanted, known, violations)
    violations.refuse()
    tensors = [
        _read(request, index, wanted[given.name], rows, violations)
        for index, given in enumerate(request.inputs)
    ]
    violations.refuse()
    _check_contents(tensors, spec, violations)
    violations.refuse()
    return rows, tensors


def _check_names(
    request: pb.ModelInferRequest,
    wanted: dict[str, TensorSpec],
    model: Signature,
    violations: Violations,
) -> None:
    seen = set()
    for index, given in enumerate(request.inputs):
        if given.name not in wanted:
            known = ", ".join(wanted)
            violations.add(f"inputs[{index}].name", f"{quote(given.name)} is not one of {known}")
        elif given.name in seen:
            violations.add(f"inputs[{index}].name", f"{quote(given.name)} comes twice")
        elif given.datatype != wanted[given.name].datatype:
            datatype = wanted[given.name].datatype
            violations.add(
                f"inputs[{index}].datatype", f"is {quote(given.datatype)}, not {datatype}"
            )
        seen.add(given.name)
    for tensor in model.inputs:
        if not tensor.optional and tensor.name not in seen:
            violations.add("inputs", f"{tensor.name!r} is missing")
    known_outputs = [tensor.name for tensor in model.outputs]
    for index, output in enumerate(request.outputs):
        if output.name not in known_outputs:
            known = ", ".join(known_outputs)
            violations.add(f"outputs[{index}].name", f"{quote(output.name)} is not one of {known}")


def _rows(
    request: pb.ModelInferRequest,
    wanted: dict[str, TensorSpec],
    model: Signature,
    violations: Violations,
) -> int:
    """The rows that all inputs agree on."""
    rows = request.inputs[0].shape[0] if request.inputs[0].shape else 0
    if model.streams:
        rows = 1
    elif not 1 <= rows <= MAX_ROWS:
        violations.add("inputs[0].shape", f"must begin with 1 to {MAX_ROWS:,} rows")
    for index, given in enumerate(request.inputs):
        shape = wanted[given.name].shape
        expected = list(shape) if model.streams else [rows, *shape]
        if list(given.shape) != expected:
            violations.add(
                f"inputs[{index}].shape", f"is {_shape(given.shape)}, not {_shape(expected)}"
            )
    return rows


def _shape(sizes: Sequence[int]) -> str:
    return "[" + ", ".join(str(size) for size in sizes[:8]) + "]"


def _read(
    request: pb.ModelInferRequest,
    index: int,
    tensor: TensorSpec,
    rows: int,
    violations: Violations,
) -> Tensor:
    if request.raw_input_contents:
        field = f"raw_input_contents[{index}]"
        data = request.raw_input_contents[index]
    else:
        field = f"inputs[{index}].contents"
        data = _encode(request.inputs[index], tensor)
    read = Tensor(tensor.name, tensor.datatype, tensor.shape, data)
    try:
        found = count_rows(read)
    except ValueError as error:
        violations.add(field, str(error))
        return read
    if found != rows:
        violations.add(field, f"holds {found:,} rows, not the {rows:,} of the shape")
    return read


def _encode(given: pb.ModelInferRequest.InferInputTensor, tensor: TensorSpec) -> bytes:
    values = getattr(given.contents, _TYPED_CONTENTS[tensor.datatype])
    if tensor.datatype == "BYTES":
        return bytes_tensor(tensor.name, values).data
    code = "?" if tensor.datatype == "BOOL" else "f"
    return Struct(f"<{len(values)}{code}").pack(*values)


def _check_contents(tensors: Sequence[Tensor], spec: ModelSpec, violations: Violations) -> None:
    if spec.task == GENERATION:
        _check_generation(tensors, spec, violations)
        return
    tensor = tensors[0]
    if tensor.name == "features":
        check_values(tensor.data, spec.features, "features", violations)
        return
    elements = read_bytes(tensor)
    most = MAX_IMAGES if tensor.name == "image" else MAX_TEXTS
    if len(elements) > most:
        violations.add(tensor.name, f"has {len(elements):,} items; at most {most:,} are allowed")
        return
    for index, element in enumerate(elements):
        field = f"{tensor.name}[{index}]"
        if tensor.name == "image":
            fault = image_fault(element)
            if fault:
                violations.add(field, fault[1])
        else:
            text = _text(field, element, violations)
            if text is not None:
                check_text(field, text, violations)


def _check_generation(tensors: Sequence[Tensor], spec: ModelSpec, violations: Violations) -> None:
    """Reads the inputs as a GenerateRequest, and holds it to that request's rules."""
    given = {tensor.name: read_bytes(tensor)[0] for tensor in tensors if tensor.datatype == "BYTES"}
    request = inference_pb2.GenerateRequest(model="checked-already")
    try:
        turns = json.loads(given.get("messages") or b"[]")
        for turn in turns:
            request.messages.add(role=_ROLES[turn["role"]], content=turn["content"])
    except (ValueError, TypeError, KeyError, RecursionError):
        violations.add("messages", 'is not JSON such as [{"role": "user", "content": "..."}]')
    try:
        sampling = given.get("sampling_parameters") or b"{}"
        json_format.Parse(sampling, request.parameters)
    except (json_format.ParseError, UnicodeError, RecursionError):
        violations.add("sampling_parameters", "is not JSON of the parameters of Generate")
    prompt = _text("text_input", given.get("text_input", b""), violations)
    violations.refuse()
    if not request.messages:
        request.prompt = prompt or ""
    try:
        check_generate(request)
        check_generate_fits(request, spec)
    except InvalidArgument as error:
        for found in error.violations:
            violations.add(found.field.replace("prompt", "text_input"), found.description)


def _text(field: str, element: bytes, violations: Violations) -> str | None:
    try:
        return element.decode()
    except UnicodeDecodeError:
        violations.add(field, "is not UTF-8")
        return None
