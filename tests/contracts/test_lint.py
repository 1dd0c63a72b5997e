"""The contracts keep to the rules, and a contract that does not is found."""

from __future__ import annotations

import pytest

from protos.lint import style_findings

from .conftest import Edit

FILES = "penstock/api/files/v1/files.proto"
MODELS = "penstock/api/models/v1/models.proto"
BATCH = "penstock/api/batch/v1/batch.proto"
USAGE = "penstock/api/usage/v1/usage.proto"
SCHEDULER = "penstock/internal/scheduler/v1/scheduler.proto"


def test_the_contracts_keep_to_every_rule() -> None:
    assert style_findings() == []


@pytest.mark.parametrize(
    ("name", "old", "new", "finding"),
    [
        pytest.param(
            BATCH,
            "  // Rows in the error file.\n",
            "",
            "field penstock.api.batch.v1.RowCounts.failed has no comment",
            id="a field without a comment",
        ),
        pytest.param(
            FILES,
            "  // A running job still adds to it.\n",
            "",
            "FileState.FILE_STATE_GROWING has no comment",
            id="an enum value without a comment",
        ),
        pytest.param(
            FILES,
            "  // What this message carries.\n",
            "",
            "oneof penstock.api.files.v1.UploadFileRequest.content has no comment",
            id="a oneof without a comment",
        ),
        pytest.param(
            FILES,
            "// Files that jobs read and write.\n",
            "",
            "package penstock/api/files/v1/files.proto has no comment",
            id="a file without a comment",
        ),
        pytest.param(
            FILES,
            "// File describes a file.",
            "// Describes a file.",
            "does not begin with its name",
            id="a message's comment without its name",
        ),
        pytest.param(
            BATCH,
            "  // Rows in the error file.\n",
            "  // Rows in the error file\n",
            "does not end with a full stop",
            id="half a sentence",
        ),
        pytest.param(
            FILES,
            "  //\n  // Errors: NOT_FOUND FILE_NOT_FOUND, FAILED_PRECONDITION FILE_IN_USE.\n",
            "",
            "FilesService.DeleteFile: its comment does not end with 'Errors: ...'",
            id="an rpc that names no errors",
        ),
        pytest.param(
            FILES,
            "FAILED_PRECONDITION FILE_IN_USE",
            "FAILED_PRECONDITION FILE_LOCKED",
            "penstock.errors has no FAILED_PRECONDITION FILE_LOCKED",
            id="a reason that no class has",
        ),
        pytest.param(
            FILES,
            "FAILED_PRECONDITION FILE_IN_USE",
            "ABORTED FILE_IN_USE",
            "penstock.errors has no ABORTED FILE_IN_USE",
            id="a reason under another code",
        ),
        pytest.param(
            FILES,
            "FAILED_PRECONDITION FILE_IN_USE",
            "FAILED_PRECONDITION",
            "penstock.errors has no FAILED_PRECONDITION -",
            id="a code without a reason",
        ),
        pytest.param(
            MODELS,
            "// Any method may also answer",
            "// Any method may answer",
            "service penstock.api.models.v1.ModelsService: its comment does not end",
            id="a service that names no shared errors",
        ),
        pytest.param(
            BATCH,
            ", ABORTED READER_STALLED",
            "",
            "WatchBatch does not name ABORTED READER_STALLED",
            id="a stream that cannot stall",
        ),
        pytest.param(
            MODELS,
            'option (google.api.http) = {get: "/v1/models"};',
            "",
            "rpc penstock.api.models.v1.ModelsService.ListModels lacks a google.api.http",
            id="an rpc without a route",
        ),
        pytest.param(
            MODELS,
            '{get: "/v1/models/{model}"}',
            '{get: "/v1/files/{model}"}',
            "FilesService.GetFile share the route get /v1/files/{model}",
            id="two rpcs with one route",
        ),
        pytest.param(
            MODELS,
            '{get: "/v1/models/{model}"}',
            '{get: "/v1/models/{name}"}',
            "the request has no field name for /v1/models/{name}",
            id="a route with an unknown variable",
        ),
        pytest.param(
            USAGE,
            "  // From the answer before; empty starts anew.\n  string page_token = 6;\n",
            "",
            "rpc penstock.api.usage.v1.UsageService.QueryUsage does not page",
            id="a list without pages",
        ),
        pytest.param(
            FILES,
            "string idempotency_key = 7;",
            "string key = 7;",
            "rpc penstock.api.files.v1.FilesService.UploadFile takes no idempotency key",
            id="a creation that repeats",
        ),
        pytest.param(
            BATCH,
            "rpc GetBatch(GetBatchRequest) returns (GetBatchResponse)",
            "rpc GetBatch(CancelBatchRequest) returns (GetBatchResponse)",
            'RPC request type "CancelBatchRequest" should be named "GetBatchRequest"',
            id="an rpc with another's request",
        ),
        pytest.param(
            FILES,
            "FILE_STATE_UNSPECIFIED = 0",
            "FILE_STATE_NONE = 0",
            'should be suffixed with "_UNSPECIFIED"',
            id="an enum that starts with a meaning",
        ),
        pytest.param(
            FILES,
            "package penstock.api.files.v1;",
            "package penstock.api.file.v1;",
            'must be within a directory "penstock/api/file/v1"',
            id="a package outside its folder",
        ),
    ],
)
def test_a_contract_that_breaks_a_rule_is_found(
    edited: Edit, name: str, old: str, new: str, finding: str
) -> None:
    found = style_findings(edited(name, old, new))
    assert any(finding in line for line in found), found


def test_a_private_rpc_with_a_route_is_found(edited: Edit) -> None:
    duration = 'import "google/protobuf/duration.proto";'
    edited(SCHEDULER, duration, f'import "google/api/annotations.proto";\n{duration}')
    route = '{ option (google.api.http) = {get: "/v1/jobs/{job_id}"}; }'
    rpc = "rpc GetJob(GetJobRequest) returns (GetJobResponse)"
    found = style_findings(edited(SCHEDULER, f"{rpc};", f"{rpc} {route}"))
    assert any("SchedulerService.GetJob must not have a google.api.http" in line for line in found)
