"""Answers and model descriptions as messages of the Open Inference Protocol."""

from __future__ import annotations

from tritonclient.grpc import service_pb2 as pb

from gateway.adapters.signatures import TensorSpec, signature_of
from gateway.adapters.usage import image_usage, row_usage, token_count, token_usage
from gateway.catalog import Target
from gateway.dispatch import Answer
from gateway.tensors import count_rows, read_bytes, read_ints
from penstock.api.types.v1 import metadata_pb2


def infer_response(
    request: pb.ModelInferRequest, target: Target, answer: Answer
) -> pb.ModelInferResponse:
    """The outputs that the request names, or all of them, as raw contents."""
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=target.version, id=request.id
    )
    signature = signature_of(target.spec)
    names = [output.name for output in request.outputs] or [t.name for t in signature.outputs]
    for name in names:
        tensor = answer.outputs[name]
        batch = (count_rows(tensor),) if signature.batched else ()
        response.outputs.add(name=name, datatype=tensor.datatype, shape=(*batch, *tensor.shape))
        response.raw_output_contents.append(tensor.data)
    return response


def model_metadata(target: Target, versions: list[str]) -> pb.ModelMetadataResponse:
    """What a model takes and gives; -1 stands for the number of rows."""
    signature = signature_of(target.spec)

    def described(tensor: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
        shape = (-1, *tensor.shape) if signature.batched else tensor.shape
        return pb.ModelMetadataResponse.TensorMetadata(
            name=tensor.name, datatype=tensor.datatype, shape=shape
        )

    return pb.ModelMetadataResponse(
        name=target.model,
        versions=versions,
        platform=target.spec.runtime,
        inputs=[described(tensor) for tensor in signature.inputs],
        outputs=[described(tensor) for tensor in signature.outputs],
    )


def is_last(answer: Answer) -> bool:
    """Whether a message of a generation is its last."""
    return read_bytes(answer.outputs["finish_reason"])[0] != b""


def usage_of(target: Target, answer: Answer, rows: int) -> metadata_pb2.Usage:
    """What one answer used, in the unit of the model's family."""
    outputs = answer.outputs
    if "num_output_tokens" in outputs:
        read = read_ints(outputs["num_input_tokens"])[0]
        return token_count(read, read_ints(outputs["num_output_tokens"])[0])
    if "tokens" in outputs:
        return token_usage(answer)
    return row_usage(rows) if target.spec.task.startswith("tabular-") else image_usage(rows)
