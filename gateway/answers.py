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
    return pb.ResponseMetadata(
        request_id=call.request_id,
        model=target.model,
        model_version=target.version,
        region=answer.region,
        replica=answer.replica,
        timing=pb.Timing(
            total=_duration(time.monotonic() - call.started),
            queue=_duration(answer.queue_seconds),
            inference=_duration(answer.inference_seconds),
        ),
        usage=usage,
        confidence=confidence,
    )


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
