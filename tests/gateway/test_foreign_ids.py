"""A foreign id is a missing id: for every rpc that takes one, walked from the descriptors.

A new rpc with a field that names a model, file, batch, job or checkpoint fails here until the table
says how it is probed; so does a method that was listed as unserved and now is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2 as oip

from gateway.tensors import bytes_tensor
from penstock.api.audit.v1 import audit_pb2 as audit
from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.models.v1 import models_pb2 as models
from penstock.api.models.v1.models_pb2_grpc import ModelsServiceStub
from penstock.api.types.v1 import content_pb2
from penstock.api.usage.v1 import usage_pb2 as usage
from penstock.service.packages import ModelSpec
from penstock.service.registry import ModelRegistry
from penstock.service.tenants import TenantRecord
from tests.gateway.pictures import picture
from tests.gateway.scripted_replica import floats
from tests.gateway.specs import spec
from tests.gateway.test_authorisation import public_services
from tests.gateway.whole import Metadata, Whole, whole_gateway

WORDS = {"model", "models", "file", "files", "batch", "batches", "job", "jobs"}
WORDS |= {"checkpoint", "checkpoints", "resource"}
RESOURCES = ("Model", "File", "Batch", "FineTuningJob", "Checkpoint")
TASKS = {
    "predict": "tabular-regression",
    "classify": "text-classification",
    "extract": "token-classification",
    "detect": "object-detection",
    "generate": "text-generation",
    "embed": "feature-extraction",
}
HIDDEN, ABSENT, VISIBLE = "hidden", "absent", "visible"
PATTERNS = ("visible-*",)

Probe = Callable[[str], Sequence[Message]]
"""The messages of a call that names this model."""


@dataclass(frozen=True)
class Probed:
    """The rpc looks the model up: a foreign name must look missing."""

    task: str
    messages: Probe


@dataclass(frozen=True)
class Filter:
    """The rpc looks for it among the caller's own events: there is nothing, as of a missing one."""

    messages: Probe


NOT_LOOKED_UP = "names are stored as they are, by operators, who may see everything"
UNSERVED = "answers UNIMPLEMENTED"


def one(make: Callable[[str], Message]) -> Probe:
    return lambda name: [make(name)]


def infer(name: str) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=name)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(floats([1.0]))
    return request


def prompt(name: str) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=name)
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(bytes_tensor("text_input", [b"x"]).data)
    return request


def row(name: str) -> inference.PredictRequest:
    matrix = inference.FeatureMatrix(rows=1, columns=1, data=floats([1.0]))
    return inference.PredictRequest(model=name, matrix=matrix)


def pictures(name: str) -> inference.DetectObjectsRequest:
    return inference.DetectObjectsRequest(
        model=name, images=[content_pb2.Image(data=picture("PNG"))]
    )


INFERENCE = "penstock.api.inference.v1.InferenceService"
EMBEDDINGS = "penstock.api.embeddings.v1.EmbeddingsService"
MODELS = "penstock.api.models.v1.ModelsService"
ADMIN = "penstock.api.admin.v1"
AUDIT = "penstock.api.audit.v1.AuditService"
OIP = "inference.GRPCInferenceService"

POLICIES: dict[tuple[str, str], Probed | Filter | str] = {
    (f"{INFERENCE}.Predict", "model"): Probed(
        "predict",
        one(row),
    ),
    (f"{INFERENCE}.Classify", "model"): Probed(
        "classify", one(lambda n: inference.ClassifyRequest(model=n, texts=["x"]))
    ),
    (f"{INFERENCE}.ExtractEntities", "model"): Probed(
        "extract", one(lambda n: inference.ExtractEntitiesRequest(model=n, texts=["x"]))
    ),
    (f"{INFERENCE}.DetectObjects", "model"): Probed("detect", one(pictures)),
    (f"{INFERENCE}.Generate", "model"): Probed(
        "generate", one(lambda n: inference.GenerateRequest(model=n, prompt="x"))
    ),
    (f"{EMBEDDINGS}.Embed", "model"): Probed(
        "embed", one(lambda n: embeddings.EmbedRequest(model=n, texts=["x"]))
    ),
    (f"{EMBEDDINGS}.EmbedStream", "model"): Probed(
        "embed",
        one(lambda n: embeddings.EmbedStreamRequest(model=n, group_id="g", texts=["x"])),
    ),
    (f"{MODELS}.GetModel", "model"): Probed(
        "predict", one(lambda n: models.GetModelRequest(model=n))
    ),
    (f"{MODELS}.ListVersions", "model"): Probed(
        "predict", one(lambda n: models.ListVersionsRequest(model=n))
    ),
    (f"{MODELS}.RegisterVersion", "model"): UNSERVED,
    (f"{MODELS}.SetTraffic", "model"): UNSERVED,
    (f"{MODELS}.RetireVersion", "model"): UNSERVED,
    (f"{OIP}.ModelReady", "name"): Probed("predict", one(lambda n: oip.ModelReadyRequest(name=n))),
    (f"{OIP}.ModelMetadata", "name"): Probed(
        "predict", one(lambda n: oip.ModelMetadataRequest(name=n))
    ),
    (f"{OIP}.ModelInfer", "model_name"): Probed("predict", one(infer)),
    (f"{OIP}.ModelStreamInfer", "model_name"): Probed("generate", one(prompt)),
    (f"{OIP}.ModelConfig", "name"): UNSERVED,
    (f"{OIP}.ModelStatistics", "name"): UNSERVED,
    (f"{OIP}.RepositoryModelLoad", "model_name"): UNSERVED,
    (f"{OIP}.RepositoryModelUnload", "model_name"): UNSERVED,
    (f"{OIP}.TraceSetting", "model_name"): UNSERVED,
    (f"{ADMIN}.KeysService.CreateKey", "key.allowed_models"): NOT_LOOKED_UP,
    (f"{ADMIN}.KeysService.UpdateKey", "key.allowed_models"): NOT_LOOKED_UP,
    (f"{ADMIN}.TenantsService.CreateTenant", "tenant.allowed_models"): NOT_LOOKED_UP,
    (f"{ADMIN}.TenantsService.CreateTenant", "tenant.model_limits.model"): NOT_LOOKED_UP,
    (f"{ADMIN}.TenantsService.UpdateTenant", "tenant.allowed_models"): NOT_LOOKED_UP,
    (f"{ADMIN}.TenantsService.UpdateTenant", "tenant.model_limits.model"): NOT_LOOKED_UP,
    ("penstock.api.multimodal.v1.MultimodalService.EmbedContent", "model"): UNSERVED,
    ("penstock.api.multimodal.v1.MultimodalService.Respond", "model"): UNSERVED,
    ("penstock.api.files.v1.FilesService.GetFile", "file_id"): UNSERVED,
    ("penstock.api.files.v1.FilesService.DownloadFile", "file_id"): UNSERVED,
    ("penstock.api.files.v1.FilesService.DeleteFile", "file_id"): UNSERVED,
    ("penstock.api.batch.v1.BatchService.CreateBatch", "input_file_id"): UNSERVED,
    ("penstock.api.batch.v1.BatchService.CreateBatch", "model"): UNSERVED,
    ("penstock.api.batch.v1.BatchService.GetBatch", "batch_id"): UNSERVED,
    ("penstock.api.batch.v1.BatchService.ListBatches", "model"): UNSERVED,
    ("penstock.api.batch.v1.BatchService.CancelBatch", "batch_id"): UNSERVED,
    ("penstock.api.batch.v1.BatchService.WatchBatch", "batch_id"): UNSERVED,
    **{
        (f"penstock.api.finetuning.v1.FineTuningService.{method}", field): UNSERVED
        for method, fields in {
            "CreateFineTuningJob": (
                "base_model",
                "training_file_id",
                "evaluation_file_id",
                "start_checkpoint_id",
            ),
            "GetFineTuningJob": ("job_id",),
            "ListFineTuningJobs": ("base_model",),
            "CancelFineTuningJob": ("job_id",),
            "WatchFineTuningJob": ("job_id",),
            "ListCheckpoints": ("job_id",),
        }.items()
        for field in fields
    },
    ("penstock.api.usage.v1.UsageService.QueryUsage", "filter.models"): Filter(
        one(lambda n: usage.QueryUsageRequest(filter=usage.UsageFilter(models=[n])))
    ),
    (f"{AUDIT}.QueryEvents", "model"): Filter(one(lambda n: audit.QueryEventsRequest(model=n))),
    (f"{AUDIT}.QueryEvents", "resource_id"): Filter(
        one(lambda n: audit.QueryEventsRequest(resource_id=n))
    ),
}
"""(rpc, field) -> how a foreign id in it is kept from looking different from a missing one."""


def rpcs() -> dict[str, MethodDescriptor]:
    """Every rpc that the gateway answers, by full name."""
    services = [*public_services(), oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]]
    return {method.full_name: method for service in services for method in service.methods}


def id_fields(message: Any, prefix: str = "", above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths of the fields of a message that name a resource."""
    for field in message.fields:
        kind = field.message_type
        if kind is not None and kind.full_name not in above:
            yield from id_fields(kind, f"{prefix}{field.name}.", above | {kind.full_name})
        elif field.type == FieldDescriptor.TYPE_STRING and names_a_resource(
            message.name, field.name
        ):
            yield prefix + field.name


def names_a_resource(message: str, field: str) -> bool:
    """By words: a field's own, or the message's where the field is only called name or id."""
    words = field.split("_")
    if field == "id":
        return message in RESOURCES
    if field == "name":
        return message.endswith("Request") and any(resource in message for resource in RESOURCES)
    return bool(WORDS & set(words)) and words[-1] != "version"


@dataclass(frozen=True)
class Outcome:
    """All that a caller can see of a call, but for its request id and the id that it asked for."""

    code: grpc.StatusCode
    details: str
    status: bytes
    answers: tuple[bytes, ...]
    metadata: frozenset[str]


async def outcome(
    channel: grpc.aio.Channel, rpc: MethodDescriptor, messages: Sequence[Message], by: Metadata
) -> Outcome:
    """Calls and remembers bytes; the model's name must be set in the first message."""
    path = f"/{rpc.containing_service.full_name}/{rpc.name}"
    encoded = [message.SerializeToString() for message in messages]
    answers: list[bytes] = []
    raw: Any = channel
    try:
        if rpc.client_streaming:
            call = raw.stream_stream(path)(iter(encoded), metadata=by, timeout=5)
            answers += [answer async for answer in call]
        elif rpc.server_streaming:
            call = raw.unary_stream(path)(encoded[0], metadata=by, timeout=5)
            answers += [answer async for answer in call]
        else:
            call = raw.unary_unary(path)(encoded[0], metadata=by, timeout=5)
            answers.append(await call)
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        status = trailing.get("grpc-status-details-bin", b"")
        assert isinstance(status, bytes)
        return Outcome(
            error.code(), error.details() or "", status, tuple(answers), frozenset(trailing)
        )
    return Outcome(grpc.StatusCode.OK, "", b"", tuple(answers), frozenset())


def pin(messages: Sequence[Message], version: str) -> Sequence[Message]:
    """The messages, asking for a version where they can."""
    for field in ("model_version", "version"):
        if field in messages[0].DESCRIPTOR.fields_by_name:
            setattr(messages[0], field, version)
    return messages


def without(name: str, found: Outcome) -> Outcome:
    """The outcome with a mark in the place of the name."""
    return Outcome(
        found.code,
        found.details.replace(name, "<id>"),
        found.status.replace(name.encode(), b"<id>"),
        tuple(answer.replace(name.encode(), b"<id>") for answer in found.answers),
        found.metadata,
    )


@pytest.fixture(scope="module")
async def gateway(redis_url: str) -> AsyncIterator[Whole]:
    """With a visible and a hidden model of each task, and one that another tenant has tuned."""
    async with whole_gateway(redis_url) as served:
        registry = ModelRegistry(served.redis)
        for short, task in TASKS.items():
            for name in (f"{VISIBLE}-{short}", f"{HIDDEN}-{short}", f"ft:m:bolt:{HIDDEN}-{short}"):
                await registry.register(f"file:///{name}", f"sha256:{name}", described(task, name))
        await served.tenants.create(TenantRecord(id="narrow", allowed_models=PATTERNS))
        await served.tenants.create(TenantRecord(id="wide"))
        stub = ModelsServiceStub(served.channel)
        async with asyncio.timeout(10):
            # The catalog reads the registry twice a second.
            while True:
                request = models.ListModelsRequest()
                listed = await stub.ListModels(request, metadata=served.admin)
                if len(listed.models) >= 2 * len(TASKS):
                    break
                await asyncio.sleep(0.05)
        yield served


def described(task: str, name: str) -> ModelSpec:
    if task == "tabular-regression":
        return spec(task, name=name, labels=(), features=({"name": "x"},))
    return spec(task, name=name)


@pytest.fixture(scope="module")
async def callers(gateway: Whole) -> dict[str, Metadata]:
    """Keys that may use the visible models only: by their own list, and by their tenant's."""
    visible = [f"{VISIBLE}-{short}" for short in TASKS]
    return {
        "narrow key": await gateway.with_key("*", tenant="wide", models=visible),
        "narrow tenant": await gateway.with_key("*", tenant="narrow"),
        "wide key": await gateway.with_key("*", tenant="wide"),
    }


PROBED = {key: policy for key, policy in POLICIES.items() if isinstance(policy, Probed)}
FILTERS = {key: policy for key, policy in POLICIES.items() if isinstance(policy, Filter)}


def test_every_field_that_names_a_resource_has_a_policy() -> None:
    found = {(name, path) for name, rpc in rpcs().items() for path in id_fields(rpc.input_type)}
    assert found == set(POLICIES)


@pytest.mark.parametrize(
    "name", sorted({rpc for (rpc, _), of in POLICIES.items() if of == UNSERVED})
)
async def test_an_unserved_rpc_has_no_policy_yet(gateway: Whole, name: str) -> None:
    rpc = rpcs()[name]
    found = await outcome(gateway.channel, rpc, [GetMessageClass(rpc.input_type)()], gateway.admin)
    assert found.code is grpc.StatusCode.UNIMPLEMENTED, f"{name} is served: say how it is probed"


@pytest.mark.parametrize("key", PROBED, ids=lambda key: key[0].rpartition(".")[2])
async def test_a_foreign_model_looks_missing(
    gateway: Whole, callers: dict[str, Metadata], key: tuple[str, str]
) -> None:
    rpc, policy = rpcs()[key[0]], PROBED[key]
    for caller, by in callers.items():
        foreign = [f"ft:m:bolt:{HIDDEN}-{short}" for short in TASKS]
        if caller != "wide key":
            foreign += [f"{HIDDEN}-{short}" for short in TASKS]
        for name in foreign:
            missing = name.replace(HIDDEN, ABSENT)
            for version in ("", "1", "9"):
                one, other = [
                    without(asked, await outcome(gateway.channel, rpc, pinned, by))
                    for asked in (name, missing)
                    for pinned in [pin(policy.messages(asked), version)]
                ]
                assert one == other, f"{caller}: {name} {version} can be told from {missing}"
            assert b"<id>" in one.status + b"".join(one.answers) or one.answers == (b"",)


@pytest.mark.parametrize("key", FILTERS, ids=".".join)
async def test_a_filter_tells_nothing_of_a_foreign_model(
    gateway: Whole, callers: dict[str, Metadata], key: tuple[str, str]
) -> None:
    rpc, policy = rpcs()[key[0]], FILTERS[key]
    for by in (callers["narrow key"], callers["narrow tenant"]):
        one, other = [
            without(name, await outcome(gateway.channel, rpc, policy.messages(name), by))
            for name in (f"{HIDDEN}-predict", f"{ABSENT}-predict")
        ]
        assert one.code is grpc.StatusCode.OK
        assert one == other


@pytest.mark.parametrize("key", PROBED, ids=lambda key: key[0].rpartition(".")[2])
async def test_the_same_call_of_a_visible_model_goes_further(
    gateway: Whole, callers: dict[str, Metadata], key: tuple[str, str]
) -> None:
    rpc, policy = rpcs()[key[0]], PROBED[key]
    messages = {name: policy.messages(f"{name}-{policy.task}") for name in (VISIBLE, ABSENT)}
    for by in callers.values():
        seen = await outcome(gateway.channel, rpc, messages[VISIBLE], by)
        unseen = await outcome(gateway.channel, rpc, messages[ABSENT], by)
        if rpc.name != "ModelReady":
            # Nothing serves the models here, so that readiness is the same.
            assert without(f"{VISIBLE}-{policy.task}", seen) != without(
                f"{ABSENT}-{policy.task}", unseen
            )
        assert seen.code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE), seen
