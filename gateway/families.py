"""Which family of the API a call is billed under."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from penstock.api.types.v1 import metadata_pb2 as pb

_BY_SERVICE: Mapping[str, pb.ApiFamily.ValueType] = {
    "penstock.api.inference.v1.InferenceService": pb.API_FAMILY_INFERENCE,
    "inference.GRPCInferenceService": pb.API_FAMILY_INFERENCE,
    "penstock.api.embeddings.v1.EmbeddingsService": pb.API_FAMILY_EMBEDDINGS,
    "penstock.api.multimodal.v1.MultimodalService": pb.API_FAMILY_MULTIMODAL,
}


@lru_cache(1024)
def family_of(method: str) -> pb.ApiFamily.ValueType:
    """By the service in the method's full name; what the others do is not billed by the call."""
    return _BY_SERVICE.get(method[1:].partition("/")[0], pb.API_FAMILY_UNSPECIFIED)
