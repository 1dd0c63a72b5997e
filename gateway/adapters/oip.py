"""Answers and model descriptions as messages of the Open Inference Protocol."""

from __future__ import annotations

from tritonclient.grpc import service_pb2 as pb

from gateway.adapters.usage import image_usage, row_usage, token_usage
from gateway.catalog import Target
from gateway.dispatch import Answer
from gateway.tensors import count_rows
from penstock.api.types.v1 import metadata_pb2
from penstock.service.signatures import TensorSpec, signature


def infer_response(
    request: pb.ModelInferRequest, target: Target, answer: Answer
) -> pb.ModelInferResponse:
    """The outputs that the request names, or all of them, as raw contents."""
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=target.version, id=request.id
    )
    tensors = signature(target.spec)
    names = [output.name for output in request.outputs] or [t.name for t in tensors.outputs]
    for name in names:
        if name not in answer.outputs:
            continue
        tensor = answer.outputs[name]
        batch = () if tensors.streams else (count_rows(tensor),)
        response.outputs.add(name=name, datatype=tensor.datatype, shape=(*batch, *tensor.shape))
        response.raw_output_contents.append(tensor.data)
    return response


def model_metadata(target: Target, versions: list[str]) -> pb.ModelMetadataResponse:
    """What a model takes and gives; -1 stands for the number of rows."""
    tensors = signature(target.spec)

    def described(tensor: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
        shape = tensor.shape if tensors.streams else (-1, *tensor.shape)
        return pb.ModelMetadataResponse.TensorMetadata(
            name=tensor.name, datatype=tensor.datatype, shape=shape
        )

    return pb.ModelMetadataResponse(
        name=target.model,
        versions=versions,
        platform=target.spec.runtime,
        inputs=[described(tensor) for tensor in tensors.inputs],
        outputs=[described(tensor) for tensor in tensors.outputs],
    )


def usage_of(target: Target, answer: Answer, rows: int) -> metadata_pb2.Usage:
    """What an answer in one message used, in the unit of the model's family."""
    if "tokens" in answer.outputs:
        return token_usage(answer)
    return row_usage(rows) if target.spec.task.startswith("tabular-") else image_usage(rows)
