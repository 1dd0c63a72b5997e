"""Writes rows to files as they come: JSON lines, CSV or Parquet, in constant memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

FORMATS = ("jsonl", "csv", "parquet")
ROWS_A_FILE = 50_000

Row = dict[str, Any]


def export_rows(rows: Iterable[Row], directory: Path, kind: str) -> tuple[int, list[Path]]:
    """Writes events-000001.<kind> and so on; how many rows, and the files.

    Every row has the same columns. A file takes its name only once it is whole. Raises OSError,
    and ModuleNotFoundError where Parquet needs pyarrow.
    """
    write = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}[kind]
    directory.mkdir(parents=True, exist_ok=True)
    count, left = 0, iter(rows)
    files: list[Path] = []
    while some := list(islice(left, ROWS_A_FILE)):
        path = directory / f"events-{len(files) + 1:06d}.{kind}"
        fresh = path.with_name(f".{path.name}.part")
        write(some, fresh)
        fresh.replace(path)
        files.append(path)
        count += len(some)
    return count, files


def _write_jsonl(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _harmless(value) for name, value in row.items()})


def _harmless(value: Any) -> Any:
    # A spreadsheet runs what begins so as a formula, and names are what callers make them.
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    # Not a dependency of the client: only this format needs it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path, compression="zstd")
