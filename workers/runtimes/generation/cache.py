"""The keys and values of every running sequence, in buffers that are written in place.

Row r, column p of a buffer holds position p of the sequence in row r, so a sequence joins by taking
the next row, leaves by having another row moved into its place, and no step copies what is there.
Columns past a row's own length hold leftovers, which the attention mask hides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

_FIRST_COLUMNS = 64


class RowCache(Cache):
    """A transformers cache whose rows have lengths of their own."""

    def __init__(self, max_rows: int, max_columns: int) -> None:
        super().__init__(layers=[])
        self._max_rows = max_rows
        self._max_columns = max_columns
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._rows = slice(0, 0)
        self._row_index = torch.empty(0)
        self._positions = torch.empty(0)
        self._width = 0

    def aim(self, first_row: int, positions: Tensor, width: int) -> None:
        """Says where the next forward writes: ``positions`` [rows, tokens] from ``first_row`` on.

        Every row then reads its first ``width`` columns.
        """
        rows = positions.shape[0]
        self._rows = slice(first_row, first_row + rows)
        self._row_index = torch.arange(first_row, first_row + rows, device=positions.device)[
            :, None
        ]
        self._positions = positions
        self._width = width

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes [rows, heads, tokens, size] and returns all columns of the same rows."""
        if layer_idx == len(self._keys):
            self._keys.append(key_states.new_empty(0))
            self._values.append(value_states.new_empty(0))
        return (
            self._write(self._keys, layer_idx, key_states),
            self._write(self._values, layer_idx, value_states),
        )

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first ``length`` columns of one row over another."""
        for buffer in (*self._keys, *self._values):
            buffer[target, :, :length] = buffer[source, :, :length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns in use before the next write; models given positions do not depend on it."""
        return max(self._width - self._positions.shape[-1], 0)

    def _write(self, buffers: list[Tensor], layer: int, states: Tensor) -> Tensor:
        buffer = buffers[layer]
        if buffer.dim() == 1 or self._rows.stop > buffer.shape[0] or self._width > buffer.shape[2]:
            buffer = buffers[layer] = self._grown(buffer, states)
        buffer[self._row_index, :, self._positions] = states.transpose(1, 2)
        return buffer[self._rows, :, : self._width]

    def _grown(self, buffer: Tensor, states: Tensor) -> Tensor:
        """A larger copy: sizes double, so that growing costs little over a sequence's life."""
        rows, columns = (0, 0) if buffer.dim() == 1 else (buffer.shape[0], buffer.shape[2])
        more_rows = _doubled(max(rows, 1), self._rows.stop, self._max_rows)
        more_columns = _doubled(max(columns, _FIRST_COLUMNS), self._width, self._max_columns)
        heads, size = states.shape[1], states.shape[3]
        grown = states.new_zeros(more_rows, heads, more_columns, size)
        if rows:
            grown[:rows, :, :columns] = buffer
        return grown


def _doubled(size: int, needed: int, most: int) -> int:
    while size < needed:
        size *= 2
    return max(min(size, most), needed)
