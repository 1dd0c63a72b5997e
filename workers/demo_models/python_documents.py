"""English that every machine with Python has: the standard library's own documentation.

Docstrings of modules, classes and functions, read from the sources without importing them, and
the language reference that ``help()`` shows.
"""

from __future__ import annotations

import ast
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

SHORTEST = 20
"""Characters; what is shorter says nothing."""
HELD_OUT_SHARE = 20
"""One document in this many is kept for measuring."""

_LEFT_OUT = {
    "dist-packages",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of documentation."""

    name: str
    """What it documents, such as shutil.copytree."""
    text: str

    @property
    def held_out(self) -> bool:
        """Whether training must not see it."""
        return zlib.crc32(self.text.encode()) % HELD_OUT_SHARE == 0


def python_documents() -> list[Document]:
    """All of them, in a fixed order, each text once."""
    found = {text.strip(): name for name, text in sorted(topics.items())}
    root = Path(sysconfig.get_path("stdlib"))
    for source in sorted(root.rglob("*.py")):
        path = source.relative_to(root)
        if not _LEFT_OUT & set(path.parts):
            module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            for name, text in _docstrings(source, module):
                found.setdefault(text, name)
    return [Document(name, text) for text, name in found.items() if len(text) >= SHORTEST]


def _docstrings(source: Path, module: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):
        return
    inside: list[tuple[str, ast.AST]] = [(module, tree)]
    for name, node in inside:
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if text := ast.get_docstring(node):
            yield name, text
        inside += [(f"{name}.{child.name}", child) for child in node.body if hasattr(child, "name")]
