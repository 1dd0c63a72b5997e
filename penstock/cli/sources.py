"""What a verb works on: arguments, lines of a file, rows of a CSV file, or standard input."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from penstock.client.inputs import Feature

STDIN = "-"


def texts(arguments: Sequence[str], file: str | None) -> list[str]:
    """The texts: the arguments, or the non-empty lines of the file; ``-`` is standard input.

    Raises ValueError when there are none, OSError for a file that cannot be read.
    """
    if file is None and list(arguments) == [STDIN]:
        file = STDIN
    elif arguments and file is not None:
        raise ValueError("give texts or --file, not both")
    if file is None:
        found = list(arguments)
    else:
        with _opened(file) as lines:
            found = [text for line in lines if (text := line.rstrip("\r\n"))]
    if not found:
        raise ValueError("no texts: give some, or --file FILE, or - for standard input")
    return found


def whole_text(argument: str | None, file: str | None) -> str:
    """One text: the argument, or all of the file; ``-`` is standard input."""
    if argument not in (None, STDIN) and file is not None:
        raise ValueError("give a prompt or --file, not both")
    if argument is not None and argument != STDIN:
        return argument
    if argument is None and file is None:
        raise ValueError("no prompt: give one, or --file FILE, or - for standard input")
    with _opened(file or STDIN) as lines:
        return lines.read()


def image(path: str) -> bytes:
    """An encoded image; ``-`` is standard input."""
    return sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()


def json_row(text: str) -> dict[str, Feature]:
    """A row written as a JSON object. Raises ValueError for anything else."""
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--row is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("--row must be a JSON object of features by name")
    return row


def csv_rows(file: str, categories: Collection[str] | None) -> list[Mapping[str, Feature]]:
    """The rows of a CSV file whose first line names the features; an empty cell is absent.

    ``categories`` names the features whose cells are texts; without it, what reads as a number is
    one.
    """
    with _opened(file) as lines:
        rows: list[Mapping[str, Feature]] = [
            {name: _cell(name, cell, categories) for name, cell in row.items() if name}
            for row in csv.DictReader(lines)
        ]
    if not rows:
        raise ValueError(f"{file} has no rows")
    return rows


def _cell(name: str, cell: str | None, categories: Collection[str] | None) -> Feature:
    if not cell:
        return None
    if categories is not None and name in categories:
        return cell
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    try:
        return float(cell)
    except ValueError:
        return cell


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    if file == STDIN:
        yield sys.stdin
    else:
        with Path(file).open(encoding="utf-8-sig", newline="") as opened:
            yield opened
