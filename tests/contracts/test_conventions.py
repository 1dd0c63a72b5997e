"""What users of the contracts may rely on across all families."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from protos.elements import messages, methods, our_files
from protos.rules import error_classes, named_errors
from protos.sources import ROOT

SERVICES = {
    "inference.v1.InferenceService": "Predict Classify ExtractEntities DetectObjects Generate",
    "embeddings.v1.EmbeddingsService": "Embed EmbedStream",
    "multimodal.v1.MultimodalService": "EmbedContent Respond",
    "files.v1.FilesService": "UploadFile GetFile ListFiles DownloadFile DeleteFile",
    "batch.v1.BatchService": "CreateBatch GetBatch ListBatches CancelBatch WatchBatch",
    "finetuning.v1.FineTuningService": (
        "CreateFineTuningJob GetFineTuningJob ListFineTuningJobs CancelFineTuningJob "
        "WatchFineTuningJob ListCheckpoints"
    ),
    "models.v1.ModelsService": (
        "ListModels GetModel ListVersions RegisterVersion SetTraffic RetireVersion"
    ),
    "usage.v1.UsageService": "QueryUsage GetLimits",
    "admin.v1.TenantsService": (
        "CreateTenant GetTenant ListTenants UpdateTenant SuspendTenant ResumeTenant EraseTenant"
    ),
    "admin.v1.KeysService": "CreateKey GetKey ListKeys UpdateKey RotateKey RevokeKey",
    "audit.v1.AuditService": "QueryEvents VerifyChain",
}

STREAMS_OUT = {"Generate", "Respond", "DownloadFile", "WatchBatch", "WatchFineTuningJob"}
STREAMS_IN = {"UploadFile"}
STREAMS_BOTH_WAYS = {"EmbedStream"}


def test_the_public_api_is_exactly_this(image: FileDescriptorSet) -> None:
    found: dict[str, list[str]] = {}
    for method in methods(image):
        service, _, name = method.name.removeprefix("penstock.api.").rpartition(".")
        if method.is_public:
            found.setdefault(service, []).append(name)
    assert found == {service: names.split() for service, names in SERVICES.items()}


def test_calls_stream_in_the_direction_that_their_families_need(image: FileDescriptorSet) -> None:
    public = [method for method in methods(image) if method.is_public]
    out = {m.short_name for m in public if m.descriptor.server_streaming}
    into = {m.short_name for m in public if m.descriptor.client_streaming}
    assert out - into == STREAMS_OUT
    assert into - out == STREAMS_IN
    assert out & into == STREAMS_BOTH_WAYS


def test_every_rpc_has_a_request_and_a_response_of_its_own(image: FileDescriptorSet) -> None:
    for method in methods(image):
        assert method.descriptor.input_type.endswith(f".{method.short_name}Request")
        assert method.descriptor.output_type.endswith(f".{method.short_name}Response")
    types = Counter(
        kind
        for method in methods(image)
        for kind in (method.descriptor.input_type, method.descriptor.output_type)
    )
    assert set(types.values()) == {1}


def test_a_file_holds_at_most_one_service(image: FileDescriptorSet) -> None:
    assert all(len(file.service) <= 1 for file in our_files(image))


def test_every_enum_starts_unspecified(image: FileDescriptorSet) -> None:
    for file in our_files(image):
        nested = [enum for message in file.message_type for enum in message.enum_type]
        for enum in [*file.enum_type, *nested]:
            assert enum.value[0].number == 0
            assert enum.value[0].name.endswith("_UNSPECIFIED")


def test_times_are_timestamps(image: FileDescriptorSet) -> None:
    for file in our_files(image):
        for message in file.message_type:
            for field in message.field:
                if re.search(r"(^|_)time$", field.name) and not field.name.startswith("max_"):
                    assert field.type_name == ".google.protobuf.Timestamp", field.name


def test_every_answer_of_a_model_carries_its_metadata(image: FileDescriptorSet) -> None:
    types = messages(image)
    running = ("inference", "embeddings", "multimodal")
    for method in methods(image):
        if method.name.startswith(tuple(f"penstock.api.{family}." for family in running)):
            fields = {field.name: field for field in types[method.descriptor.output_type].field}
            assert fields["metadata"].type_name == ".penstock.api.types.v1.ResponseMetadata"


def test_no_public_request_names_the_callers_tenant(image: FileDescriptorSet) -> None:
    # The credentials do. Only operators, and filters that show nothing foreign, name one.
    named = {
        method.name.removeprefix("penstock.api.").split(".")[0]
        for method in methods(image)
        if method.is_public
        and any("tenant" in f.name for f in messages(image)[method.descriptor.input_type].field)
    }
    assert named == {"admin", "audit"}


def test_every_word_about_a_lease_shows_the_lease(image: FileDescriptorSet) -> None:
    types = messages(image)
    scheduler = ".penstock.internal.scheduler.v1"
    for name in ("HeartbeatRequest", "ReportProgressRequest", "TaskCommit", "TaskFailure"):
        assert f"{scheduler}.Lease" in {f.type_name for f in types[f"{scheduler}.{name}"].field}
    lease = {field.name: field.type for field in types[f"{scheduler}.Lease"].field}
    assert lease == {
        "task_id": FieldDescriptorProto.TYPE_STRING,
        "epoch": FieldDescriptorProto.TYPE_INT64,
        "owner_nonce": FieldDescriptorProto.TYPE_BYTES,
    }
    for name in ("LeaseTasksRequest", "ReportProgressRequest", "TaskCommit", "TaskFailure"):
        assert "operation_id" in {field.name for field in types[f"{scheduler}.{name}"].field}


def test_a_reason_belongs_to_one_class() -> None:
    reasons = Counter(kind.reason for kind in error_classes())
    # Two names of one thing: what broke inside is always this to a caller.
    del reasons["INTERNAL"]
    assert {reason for reason, count in reasons.items() if count > 1} == set()


def test_the_page_for_users_lists_every_reason() -> None:
    page = Path(ROOT / "docs/contracts.md").read_text()
    rows = set(re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert rows == {(kind.code.name, kind.reason) for kind in error_classes()}


def test_errors_are_read_as_they_are_written() -> None:
    assert named_errors("Errors: NOT_FOUND A_B, C or D, ABORTED E.") == [
        ("NOT_FOUND", "A_B"),
        ("NOT_FOUND", "C"),
        ("NOT_FOUND", "D"),
        ("ABORTED", "E"),
    ]
    assert named_errors("DEADLINE_EXCEEDED DEADLINE_EXCEEDED, UNAVAILABLE") == [
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        ("UNAVAILABLE", ""),
    ]
