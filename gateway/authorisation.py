"""One table: which scope each method needs. A method that is missing here is served to nobody."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gateway.calls import Principal
from penstock.errors import ScopeMissing

_TABLE: Mapping[str, Mapping[str, str]] = {
    "penstock.api.inference.v1.InferenceService": {
        "inference:invoke": "Predict Classify ExtractEntities DetectObjects Generate",
    },
    "penstock.api.embeddings.v1.EmbeddingsService": {
        "embeddings:invoke": "Embed EmbedStream",
    },
    "penstock.api.multimodal.v1.MultimodalService": {
        "multimodal:invoke": "EmbedContent Respond",
    },
    "penstock.api.files.v1.FilesService": {
        "files:read": "GetFile ListFiles DownloadFile",
        "files:write": "UploadFile DeleteFile",
    },
    "penstock.api.batch.v1.BatchService": {
        "batch:read": "GetBatch ListBatches WatchBatch",
        "batch:write": "CreateBatch CancelBatch",
    },
    "penstock.api.finetuning.v1.FineTuningService": {
        "finetuning:read": (
            "GetFineTuningJob ListFineTuningJobs WatchFineTuningJob ListCheckpoints"
        ),
        "finetuning:write": "CreateFineTuningJob CancelFineTuningJob",
    },
    "penstock.api.models.v1.ModelsService": {
        "models:read": "ListModels GetModel ListVersions",
        "models:admin": "RegisterVersion SetTraffic RetireVersion",
    },
    "penstock.api.usage.v1.UsageService": {
        "usage:read": "QueryUsage GetLimits",
    },
    "penstock.api.admin.v1.TenantsService": {
        "admin:read": "GetTenant ListTenants",
        "admin:write": "CreateTenant UpdateTenant SuspendTenant ResumeTenant EraseTenant",
    },
    "penstock.api.admin.v1.KeysService": {
        "admin:read": "GetKey ListKeys",
        "admin:write": "CreateKey UpdateKey RotateKey RevokeKey",
    },
    "penstock.api.audit.v1.AuditService": {
        "audit:read": "QueryEvents VerifyChain",
    },
    "inference.GRPCInferenceService": {
        "models:read": "ServerLive ServerReady ServerMetadata ModelReady ModelMetadata",
        "inference:invoke": "ModelInfer ModelStreamInfer",
    },
}
"""Service -> scope -> its methods."""

SCOPES: Mapping[str, str] = {
    f"/{service}/{method}": scope
    for service, scopes in _TABLE.items()
    for scope, methods in scopes.items()
    for method in methods.split()
}
"""Full method name -> scope."""


def authorise(principal: Principal, scope: str) -> None:
    """Lets the call pass or raises ScopeMissing; ``family:*`` and ``*`` cover several scopes."""
    if not scope:
        raise ScopeMissing("none: the method is not open to callers")
    if not holds(principal.scopes, scope):
        raise ScopeMissing(scope)


def holds(held: Collection[str], scope: str) -> bool:
    """Whether the scope, or the wildcard, is among those held or covered by one of them."""
    return scope in held or "*" in held or f"{scope.partition(':')[0]}:*" in held
