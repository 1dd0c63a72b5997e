"""What a call used, in the unit that its family counts."""

from __future__ import annotations

from gateway.dispatch import Answer
from gateway.tensors import read_ints
from penstock.api.types.v1 import metadata_pb2 as pb


def row_usage(rows: int) -> pb.Usage:
    """Rows of features."""
    return pb.Usage(input_units=rows, unit=pb.USAGE_UNIT_ROW)


def image_usage(images: int) -> pb.Usage:
    """Images."""
    return pb.Usage(input_units=images, unit=pb.USAGE_UNIT_IMAGE)


def token_usage(answer: Answer) -> pb.Usage:
    """The tokens that the model says it read."""
    return token_count(sum(read_ints(answer.outputs["tokens"])))


def token_count(read: int, written: int = 0) -> pb.Usage:
    """Tokens read and written."""
    return pb.Usage(input_units=read, output_units=written, unit=pb.USAGE_UNIT_TOKEN)


def added(first: pb.Usage, second: pb.Usage) -> pb.Usage:
    """The sum of two figures in the same unit."""
    return pb.Usage(
        input_units=first.input_units + second.input_units,
        output_units=first.output_units + second.output_units,
        unit=second.unit,
    )
