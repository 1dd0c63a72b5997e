"""The contracts as one descriptor image, and a copy of them to break."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from protos.sources import PROTOS, read_image, write_image

Edit = Callable[[str, str, str], Path]
"""Replaces the one place of a text in one file of the copy; gives the copy's folder."""


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    """Every contract, with comments."""
    path = tmp_path_factory.mktemp("image") / "image.binpb"
    write_image(path)
    return read_image(path)


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """Edits a copy of the contracts, never the contracts."""
    copy = tmp_path / "protos"
    shutil.copytree(PROTOS / "penstock", copy / "penstock")

    def edit(name: str, old: str, new: str) -> Path:
        path = copy / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is in {name} {text.count(old)} times"
        path.write_text(text.replace(old, new))
        return copy

    return edit
