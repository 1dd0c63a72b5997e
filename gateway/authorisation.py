"""One table: which scope each method needs. A method that is missing here is served to nobody."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.calls import Principal
from penstock.errors import ScopeMissing


def _methods(service: str, scope: str, *names: str) -> dict[str, str]:
    return {f"/{service}/{name}": scope for name in names}


SCOPES: Mapping[str, str] = {
    **_methods(
        "penstock.api.inference.v1.InferenceService",
        "inference:invoke",
        "Predict",
        "Classify",
        "ExtractEntities",
        "DetectObjects",
        "Generate",
    ),
    **_methods(
        "penstock.api.embeddings.v1.EmbeddingsService", "embeddings:invoke", "Embed", "EmbedStream"
    ),
    **_methods(
        "penstock.api.multimodal.v1.MultimodalService",
        "multimodal:invoke",
        "EmbedContent",
        "Respond",
    ),
    **_methods("penstock.api.files.v1.FilesService", "files:write", "UploadFile", "DeleteFile"),
    **_methods(
        "penstock.api.files.v1.FilesService", "files:read", "GetFile", "ListFiles", "DownloadFile"
    ),
    **_methods("penstock.api.batch.v1.BatchService", "batch:write", "CreateBatch", "CancelBatch"),
    **_methods(
        "penstock.api.batch.v1.BatchService", "batch:read", "GetBatch", "ListBatches", "WatchBatch"
    ),
    **_methods(
        "penstock.api.finetuning.v1.FineTuningService",
        "finetuning:write",
        "CreateFineTuningJob",
        "CancelFineTuningJob",
    ),
    **_methods(
        "penstock.api.finetuning.v1.FineTuningService",
        "finetuning:read",
        "GetFineTuningJob",
        "ListFineTuningJobs",
        "WatchFineTuningJob",
        "ListCheckpoints",
    ),
    **_methods(
        "penstock.api.models.v1.ModelsService",
        "models:read",
        "ListModels",
        "GetModel",
        "ListVersions",
    ),
    **_methods(
        "penstock.api.models.v1.ModelsService",
        "models:admin",
        "RegisterVersion",
        "SetTraffic",
        "RetireVersion",
    ),
    **_methods("penstock.api.usage.v1.UsageService", "usage:read", "QueryUsage", "GetLimits"),
    **_methods(
        "inference.GRPCInferenceService",
        "models:read",
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
    ),
    **_methods(
        "inference.GRPCInferenceService", "inference:invoke", "ModelInfer", "ModelStreamInfer"
    ),
}
"""Full method name -> scope."""


def authorise(principal: Principal, scope: str) -> None:
    """Lets the call pass or raises ScopeMissing; ``family:*`` and ``*`` cover several scopes."""
    held = principal.scopes
    if not scope:
        raise ScopeMissing("none: the method is not open to callers")
    if scope in held or "*" in held or f"{scope.partition(':')[0]}:*" in held:
        return
    raise ScopeMissing(scope)
