"""Embed: raw vectors to embeddings, cut, scaled and encoded as the options ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.adapters.usage import token_count
from gateway.dispatch import Answer
from gateway.tensors import read_ints
from gateway.validation.fields import Violations
from penstock.api.embeddings.v1 import embeddings_pb2 as pb
from penstock.api.types.v1 import metadata_pb2
from penstock.errors import InputTooLong
from penstock.service.packages import ModelSpec

TASKS = frozenset({"feature-extraction"})

_UNIT_TOLERANCE = 1e-6
"""A vector this close to length 1 is left as the model gave it, bit for bit."""


def embeddings(
    answer: Answer, spec: ModelSpec, options: pb.EmbedOptions
) -> tuple[list[pb.Embedding], metadata_pb2.Usage]:
    """One embedding a text, and the tokens read. Raises InputTooLong when truncation is refused."""
    tokens = read_ints(answer.outputs["tokens"])
    totals = read_ints(answer.outputs["total_tokens"])
    if options.truncation != pb.TRUNCATION_END:
        _refuse_truncated(tokens, totals)
    rows = _vectors(answer, spec, options)
    packed = options.encoding == pb.VECTOR_ENCODING_PACKED
    found = [
        pb.Embedding(
            values=None if packed else row.tolist(),
            packed=row.tobytes() if packed else b"",
            tokens=read,
            truncated=total > read,
        )
        for row, read, total in zip(rows, tokens, totals, strict=True)
    ]
    return found, token_count(sum(tokens))


def _vectors(answer: Answer, spec: ModelSpec, options: pb.EmbedOptions) -> NDArray[np.float32]:
    rows = np.frombuffer(answer.outputs["embedding"].data, "<f4").reshape(-1, spec.dimensions)
    if options.dimensions:
        rows = rows[:, : options.dimensions]
    if options.HasField("normalize") and not options.normalize:
        return rows
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if (np.abs(lengths - 1.0) <= _UNIT_TOLERANCE).all():
        return rows
    lengths[lengths == 0.0] = 1.0
    return np.divide(rows, lengths[:, None], dtype=np.float32)


def _refuse_truncated(tokens: Sequence[int], totals: Sequence[int]) -> None:
    violations = Violations()
    for index, (read, total) in enumerate(zip(tokens, totals, strict=True)):
        if total > read:
            violations.add(f"texts[{index}]", f"has {total:,} tokens; the model reads {read:,}")
    violations.refuse(InputTooLong)
