"""How answers look: a table for people with who answered below it, or one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.api.types.v1 import metadata_pb2

_UNCUT = 10_000
"""Columns for what reads a pipe: digests and texts stay whole."""
_UNITS: Mapping[int, str] = {
    metadata_pb2.USAGE_UNIT_TOKEN: "tokens",
    metadata_pb2.USAGE_UNIT_ROW: "rows",
    metadata_pb2.USAGE_UNIT_IMAGE: "images",
    metadata_pb2.USAGE_UNIT_SECOND: "seconds",
}


def show(table: Table) -> None:
    """Prints a table on standard output; only a terminal's width cuts its cells."""
    Console(width=None if sys.stdout.isatty() else _UNCUT).print(table)


def new_table(*columns: str) -> Table:
    """A table; columns whose name starts with # hold numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        number = column.startswith("#")
        table.add_column(column.lstrip("#"), justify="right" if number else "left")
    return table


def add_row(table: Table, *cells: object) -> None:
    """Adds a row as it is: what looks like markup in an answer stays text."""
    table.add_row(*(Text(str(cell)) for cell in cells))


def show_fields(fields: Mapping[str, object]) -> None:
    """Prints one thing's fields, a line each, without the empty ones."""
    table = new_table("", "")
    table.show_header = False
    for name, value in fields.items():
        if value:
            add_row(table, name, value)
    show(table)


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it, with the contract's own field names."""
    return MessageToDict(message, preserving_proto_field_name=True)


def changed_paths(message: Message, *but: str) -> list[str]:
    """The update mask of what is set: single limits and times, and whole lists."""
    paths = []
    for field, value in message.ListFields():
        parted = field.name in ("limits", "retention")
        names = [f"{field.name}.{part.name}" for part, _ in value.ListFields()] if parted else []
        paths += names or [field.name]
    return [path for path in paths if path not in but]


def print_footer(metadata: metadata_pb2.ResponseMetadata) -> None:
    """Says on standard error who answered, how fast, for how much."""
    milliseconds = metadata.timing.total.ToTimedelta().total_seconds() * 1000
    parts = [f"{metadata.model} {metadata.model_version}", f"{milliseconds:.1f} ms"]
    unit = _UNITS.get(metadata.usage.unit)
    if unit:
        read, made = metadata.usage.input_units, metadata.usage.output_units
        counted = f"{read} {unit if read != 1 else unit.removesuffix('s')}"
        parts.append(counted + (f" in, {made} out" if made else ""))
    parts += [f"replica {metadata.replica}", f"request {metadata.request_id}"]
    Console(stderr=True, soft_wrap=True).print(Text(" · ".join(parts), style="dim"))


def shortened(text: str, width: int = 60) -> str:
    """The text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def numbers(values: Iterable[float]) -> str:
    """Numbers as people read them."""
    return ", ".join(f"{value:.4g}" for value in values)
