"""What a replica's errors mean: who is kept away from, who is told what."""

from __future__ import annotations

import json

import grpc
import pytest

from gateway.upstream import ReplicaLost, meaning
from penstock.errors import (
    DeadlineExceeded,
    InputTooLong,
    InternalError,
    InvalidArgument,
    Overloaded,
    PenstockError,
)

Code = grpc.StatusCode


def refusal(reason: str) -> str:
    told = {"reason": reason, "field": "texts", "message": "cannot be read"}
    return f"Failed to process: PENSTOCK {json.dumps(told)}, at /some/path"


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (Code.UNAVAILABLE, "connection refused", ReplicaLost),
        (Code.NOT_FOUND, "Request for unknown model: 'm'", ReplicaLost),
        (Code.INTERNAL, "Stub process 'm' is not healthy.", ReplicaLost),
        (None, "Stub process 'm' is not healthy.", ReplicaLost),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded),
        (Code.UNAVAILABLE, "Request timeout expired", DeadlineExceeded),
        (Code.INVALID_ARGUMENT, "/internal/detail", InvalidArgument),
        (Code.INVALID_ARGUMENT, refusal("FIELD_INVALID"), InvalidArgument),
        (Code.INVALID_ARGUMENT, refusal("INPUT_TOO_LONG"), InputTooLong),
        (Code.UNAVAILABLE, refusal("OVERLOADED"), Overloaded),
        (None, refusal("OVERLOADED"), Overloaded),
        (Code.INTERNAL, "/internal/detail", InternalError),
        (Code.INVALID_ARGUMENT, "PENSTOCK {half", InternalError),
    ],
)
def test_each_error_has_one_meaning(
    code: grpc.StatusCode | None, text: str, kind: type[PenstockError]
) -> None:
    assert type(meaning(code, text)) is kind


def test_a_refusal_tells_its_own_words_only() -> None:
    error = meaning(Code.INVALID_ARGUMENT, refusal("FIELD_INVALID"))
    assert error.message == "texts: cannot be read"
    assert "path" not in meaning(Code.INVALID_ARGUMENT, "bad /some/path").message


def test_a_full_replica_is_not_kept_away_from_but_come_back_to() -> None:
    error = meaning(None, refusal("OVERLOADED"))
    assert not isinstance(error, ReplicaLost)
    assert error.retry_after_seconds
