"""The ResponseMetadata that accompanies every answer."""

from __future__ import annotations

import time

from google.protobuf.duration_pb2 import Duration

from gateway.calls import Call
from gateway.catalog import Target
from gateway.dispatch import Answer
from penstock.api.types.v1 import metadata_pb2 as pb


def response_metadata(
    target: Target,
    answer: Answer,
    call: Call,
    usage: pb.Usage,
    confidence: float | None = None,
) -> pb.ResponseMetadata:
    """Describes the answer and leaves the usage on the call for the meter."""
    call.usage = usage
    metadata = pb.ResponseMetadata(
        request_id=call.request_id,
        model=target.model,
        model_version=target.version,
        region=answer.region,
        replica=answer.replica,
        usage=usage,
        confidence=confidence,
    )
    # Set in place: building and copying three messages costs every call twice as much.
    timing = metadata.timing
    _set(timing.total, time.monotonic() - call.started)
    _set(timing.queue, answer.queue_seconds)
    _set(timing.inference, answer.inference_seconds)
    return metadata


def _set(duration: Duration, seconds: float) -> None:
    duration.seconds = whole = int(seconds)
    duration.nanos = int((seconds - whole) * 1e9)
