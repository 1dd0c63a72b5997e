"""What a package's files may be: data that nothing executes, told by name and by content.

Formats: safetensors (https://huggingface.co/docs/safetensors), pickle (PEP 3154), ZIP, numpy.
"""

from __future__ import annotations

import json
import pickletools
import struct
import zlib
from pathlib import Path, PurePosixPath

from penstock.errors import PackageInvalid

PICKLED = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".npy", ".npz"}
    | {".dill", ".cloudpickle", ".h5", ".keras", ".mar"}
)
"""Endings of weights that are, or may carry, pickled objects."""
CODE = frozenset(
    {".py", ".pyc", ".pyd", ".pyx", ".so", ".sh", ".dll", ".dylib", ".exe", ".js", ".jar", ".wasm"}
)
"""Endings of programs."""

_HEAD_BYTES = 1 << 20
_MAGIC = {
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "a ZIP archive",
    b"\x1f\x8b": "compressed",
    b"BZh": "compressed",
    b"\xfd7zXZ\x00": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",
    b"\x04\x22\x4d\x18": "compressed",
    b"\x93NUMPY": "a numpy array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x7fELF": "a program",
    b"#!": "a program",
}
_IMPORTING = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_LENGTH = struct.Struct("<Q")


def refuse_content(directory: Path, name: str) -> None:
    """Raises PackageInvalid unless the file's name and first bytes are those of plain data."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLED:
        raise PackageInvalid(f"{name}: {suffix} files can run code; use safetensors")
    if suffix in CODE:
        raise PackageInvalid(f"{name}: a package may not hold programs")
    path = directory / name
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if suffix == ".safetensors":
        _check_safetensors(path, name)
        return
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise PackageInvalid(f"{name} is {kind}")
    if _is_zlib(head):
        raise PackageInvalid(f"{name} is compressed")
    if is_pickle(head):
        raise PackageInvalid(f"{name} is a pickle")


def is_pickle(head: bytes) -> bool:
    """Whether bytes read as a pickle: protocol 2 or later by its header, 0 and 1 by parsing."""
    operations = 0
    imports = False
    declared = len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5
    try:
        for opcode, _, position in pickletools.genops(head):
            operations += 1
            imports = imports or opcode.name in _IMPORTING
            if opcode.name == "STOP":
                return declared or imports
            if declared and operations >= 3:
                return True
            if imports and (position or 0) > _HEAD_BYTES // 2:
                return True
    except Exception:  # genops raises many kinds on what is no pickle
        return False
    return False


def _check_safetensors(path: Path, name: str) -> None:
    """The header must be JSON whose tensors tile the rest of the file exactly."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_LENGTH.size)
        length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else size
        if length > min(size - _LENGTH.size, 100 << 20):
            raise PackageInvalid(f"{name} is not a safetensors file")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        spans = sorted(tuple(tensor["data_offsets"]) for tensor in tensors.values())
        end = 0
        for start, stop in spans:
            if start != end or stop < start:
                raise ValueError("tensors do not tile the file")
            end = stop
        if _LENGTH.size + length + end != size:
            raise ValueError("the file is longer or shorter than its tensors")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PackageInvalid(f"{name} is not a safetensors file") from error


def _is_zlib(head: bytes) -> bool:
    if head[:1] != b"\x78":
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 16))
    except zlib.error:
        return False
