"""Which family of the API a call is billed under."""

from __future__ import annotations

from penstock.api.types.v1 import metadata_pb2 as pb

_BY_PACKAGE = {
    "inference": pb.API_FAMILY_INFERENCE,
    "embeddings": pb.API_FAMILY_EMBEDDINGS,
    "multimodal": pb.API_FAMILY_MULTIMODAL,
    "batch": pb.API_FAMILY_BATCH,
    "finetuning": pb.API_FAMILY_FINETUNING,
}


def family_of(method: str, task: str) -> pb.ApiFamily.ValueType:
    """By the method's package; by the model's task where that is the Open Inference Protocol's."""
    if method.startswith("/penstock.api."):
        return _BY_PACKAGE.get(method.split(".", 3)[2], pb.API_FAMILY_UNSPECIFIED)
    if task == "feature-extraction":
        return pb.API_FAMILY_EMBEDDINGS
    return pb.API_FAMILY_INFERENCE
