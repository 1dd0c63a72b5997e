"""Raw tensors: what is merged comes apart again, and torn data is noticed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tensors import (
    Tensor,
    bytes_tensor,
    count_rows,
    merge,
    read_bytes,
    read_floats,
    read_ints,
    split,
)

groups_of_texts = st.lists(st.lists(st.binary(max_size=20), max_size=4), min_size=1, max_size=5)


@given(groups_of_texts)
def test_merged_texts_split_into_the_same_groups(groups: list[list[bytes]]) -> None:
    tensors = [[bytes_tensor("text", group)] for group in groups]
    (merged,) = merge(tensors)
    parts = split(merged, [len(group) for group in groups])
    assert [read_bytes(part) for part in parts] == groups
    assert count_rows(merged) == sum(len(group) for group in groups)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(1, 3))
def test_merged_numbers_split_into_the_same_groups(rows: list[int], columns: int) -> None:
    groups = [[float(n)] * (count * columns) for n, count in enumerate(rows)]
    tensors = [[Tensor("x", "FP32", (columns,), struct.pack(f"<{len(g)}f", *g))] for g in groups]
    (merged,) = merge(tensors)
    assert [list(read_floats(part)) for part in split(merged, rows)] == groups
    assert count_rows(merged) == sum(rows)


def test_integers_are_read_by_their_sign() -> None:
    assert list(read_ints(Tensor("n", "INT32", (1,), struct.pack("<i", -1)))) == [-1]
    assert list(read_ints(Tensor("n", "UINT32", (1,), struct.pack("<I", 2**32 - 1)))) == [2**32 - 1]


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("text", "BYTES", (1,), b"\x01\x00"),
        Tensor("text", "BYTES", (1,), b"\x09\x00\x00\x00abc"),
        Tensor("text", "BYTES", (2,), b"\x01\x00\x00\x00a"),
        Tensor("x", "FP32", (1,), b"\x00\x00\x00"),
        Tensor("x", "FP32", (2,), b"\x00\x00\x00\x00"),
    ],
)
def test_torn_data_is_noticed(tensor: Tensor) -> None:
    with pytest.raises(ValueError, match="data ends within"):
        count_rows(tensor)
