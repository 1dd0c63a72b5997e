"""Answers the requests that Triton merged into one execution, each on its own merits.

Rows of all requests run together. A request with bad input is refused alone, and when a merged run
fails, each request runs again by itself, so that one caller's input never fails another's call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from workers.runtimes.refusals import Refusal

log = logging.getLogger(__name__)

Array = NDArray[Any]
Outputs = Mapping[str, Array]
"""Output tensors by name; the first axis is the rows'."""
Row = TypeVar("Row")


class RunFailed(RuntimeError):
    """The model broke on a request; the log has the details, the caller gets none."""


Answer = Outputs | Refusal | RunFailed


class RowModel(Protocol[Row]):
    """A loaded model that works row by row."""

    def read(self, value: Any) -> Row:
        """Decodes one row as it came over the wire. Raises Refusal."""
        ...

    def run(self, rows: Sequence[Row]) -> Outputs:
        """Runs any number of rows (at least one) and keeps their order. May raise Refusal."""
        ...


class Answerer(Generic[Row]):
    """Runs merged requests through one model."""

    def __init__(self, model: RowModel[Row]) -> None:
        self._model = model

    def answer(self, requests: Sequence[Array]) -> list[Answer]:
        """One answer a request. Each request is an array whose first axis is the rows'."""
        read = [self._read(request) for request in requests]
        good = [rows for rows in read if isinstance(rows, list)]
        answers = iter(self._run_merged(good))
        return [next(answers) if isinstance(rows, list) else rows for rows in read]

    def _read(self, request: Array) -> list[Row] | Refusal | RunFailed:
        try:
            return [self._model.read(value) for value in request]
        except Refusal as refusal:
            return refusal
        except Exception:
            log.exception("a request could not be read")
            return RunFailed("internal error")

    def _run_merged(self, requests: Sequence[list[Row]]) -> list[Answer]:
        if len(requests) <= 1:
            return [self._run_alone(rows) for rows in requests]
        try:
            outputs = self._model.run([row for rows in requests for row in rows])
        except Exception as error:
            if not isinstance(error, Refusal):
                log.exception("a merged run failed; its %d requests run alone", len(requests))
            return [self._run_alone(rows) for rows in requests]
        return list(split(outputs, [len(rows) for rows in requests]))

    def _run_alone(self, rows: list[Row]) -> Answer:
        try:
            return self._model.run(rows)
        except Refusal as refusal:
            return refusal
        except Exception:
            log.exception("a run failed")
            return RunFailed("internal error")


def split(outputs: Outputs, counts: Sequence[int]) -> list[Outputs]:
    """Cuts merged outputs back into one set a request of so many rows each."""
    ends = np.cumsum(counts)
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for count, end in zip(counts, ends, strict=True)
    ]
