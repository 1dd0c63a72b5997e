"""Where the contracts are, and how protoc is called on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import google.api  # type: ignore[import-untyped]
import grpc_tools  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
"""The source tree."""

PROTOS = ROOT / "protos"
"""The folder that imports such as penstock/api/types/v1/metadata.proto start from."""


class ProtocError(Exception):
    """protoc refused its input; its own message is on stderr."""


def source_names(protos: Path = PROTOS) -> list[str]:
    """Import paths of every contract below ``protos``, sorted."""
    return sorted(str(path.relative_to(protos)) for path in protos.glob("penstock/**/*.proto"))


def run_protoc(arguments: Sequence[str], names: Sequence[str], protos: Path = PROTOS) -> None:
    """Run protoc on the contracts ``names``; google's protos come from their own packages.

    Raises ProtocError.
    """
    well_known = Path(grpc_tools.__path__[0]) / "_proto"
    googleapis = Path(google.api.__path__[0]).parent.parent
    includes = [f"-I{folder}" for folder in (protos, well_known, googleapis)]
    if protoc.main(["protoc", *includes, *arguments, *names]) != 0:
        raise ProtocError("protoc failed")


def write_image(image: Path, protos: Path = PROTOS, *, with_comments: bool = True) -> None:
    """Write every contract and what it imports to ``image``, one binary FileDescriptorSet."""
    options = ["--include_imports", f"--descriptor_set_out={image}"]
    if with_comments:
        options.append("--include_source_info")
    run_protoc(options, source_names(protos), protos)


def read_image(image: Path) -> FileDescriptorSet:
    """Read what ``write_image`` wrote."""
    return FileDescriptorSet.FromString(image.read_bytes())
