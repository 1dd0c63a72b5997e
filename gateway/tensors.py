"""Tensors as they travel: raw bytes, row after row, so that merging and splitting never decode.

Layout: Open Inference Protocol, ``raw_input_contents``: little-endian numbers, and BYTES elements
each preceded by a 4-byte little-endian length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

ELEMENT_BYTES = {
    "BOOL": 1,
    "INT8": 1,
    "UINT8": 1,
    "INT16": 2,
    "UINT16": 2,
    "FP16": 2,
    "BF16": 2,
    "INT32": 4,
    "UINT32": 4,
    "FP32": 4,
    "INT64": 8,
    "UINT64": 8,
    "FP64": 8,
}
"""Bytes of one element of every fixed-size datatype."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input or output of some rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """Of one row: without the row (batch) axis."""
    data: bytes
    """Row after row."""

    def row_elements(self) -> int:
        """Elements in one row."""
        return prod(self.shape)


def bytes_tensor(name: str, values: Sequence[bytes]) -> Tensor:
    """A BYTES tensor of shape [1] a row, one value a row."""
    pack = _LENGTH.pack
    return Tensor(name, "BYTES", (1,), b"".join([pack(len(v)) + v for v in values]))


def read_bytes(tensor: Tensor) -> list[bytes]:
    """The elements of a BYTES tensor, in order."""
    return [tensor.data[start:end] for start, end in _elements(tensor.data)]


def read_floats(tensor: Tensor) -> Sequence[float]:
    """The elements of an FP32 tensor, in order, without a copy."""
    return memoryview(tensor.data).cast("f")


def read_ints(tensor: Tensor) -> Sequence[int]:
    """The elements of an INT32 or UINT32 tensor, in order, without a copy."""
    return memoryview(tensor.data).cast("i" if tensor.datatype == "INT32" else "I")


def merge(groups: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Puts several calls' rows one after another; all have the same names and row shapes."""
    if len(groups) == 1:
        return list(groups[0])
    return [
        Tensor(
            first.name,
            first.datatype,
            first.shape,
            b"".join([group[position].data for group in groups]),
        )
        for position, first in enumerate(groups[0])
    ]


def split(tensor: Tensor, row_counts: Sequence[int]) -> list[Tensor]:
    """Cuts a tensor into consecutive groups of rows."""
    cuts = _cuts(tensor, row_counts)
    return [
        Tensor(tensor.name, tensor.datatype, tensor.shape, tensor.data[start:end])
        for start, end in cuts
    ]


def count_rows(tensor: Tensor) -> int:
    """Rows that the data holds; raises ValueError when it is not a whole number of rows."""
    elements = tensor.row_elements()
    if tensor.datatype == "BYTES":
        found = sum(1 for _ in _elements(tensor.data))
    else:
        found, torn = divmod(len(tensor.data), ELEMENT_BYTES[tensor.datatype])
        if torn:
            raise ValueError("data ends within an element")
    rows, torn = divmod(found, elements)
    if torn:
        raise ValueError("data ends within a row")
    return rows


def _cuts(tensor: Tensor, row_counts: Sequence[int]) -> list[tuple[int, int]]:
    elements = tensor.row_elements()
    cuts: list[tuple[int, int]] = []
    start = 0
    if tensor.datatype != "BYTES":
        row_bytes = elements * ELEMENT_BYTES[tensor.datatype]
        for rows in row_counts:
            cuts.append((start, start + rows * row_bytes))
            start = cuts[-1][1]
        return cuts
    ends = [end for _, end in _elements(tensor.data)]
    seen = 0
    for rows in row_counts:
        seen += rows * elements
        end = ends[seen - 1] if seen else 0
        cuts.append((start, end))
        start = end
    return cuts


def _elements(data: bytes) -> Iterator[tuple[int, int]]:
    at, total = 0, len(data)
    while at < total:
        if at + 4 > total:
            raise ValueError("data ends within a length")
        start = at + 4
        at = start + _LENGTH.unpack_from(data, at)[0]
        if at > total:
            raise ValueError("data ends within an element")
        yield start, at
