"""The frames of a write-ahead file: how records, and the chain that proves them, lie on the disk.

A frame is its payload's length (4 bytes, little endian), a CRC-32 of all that follows (4 bytes),
its kind (1 byte), the payload, and the chain (16 bytes): the beginning of the SHA-256 over the
chain of the frame before, the kind and the payload. The chain runs on from file to file; it starts
from the source's id. Kinds:

* HEADER, first in every file: the file's number, how many records of ended calls the files before
  hold, and the chain before this frame.
* RECORD: a WriteAheadRecord.
* ANCHOR, written before each fsync: HMAC-SHA256 under the ledger key over the chain before this
  frame. Whoever changes anything before an anchor needs the key.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from typing import NamedTuple

HEADER, RECORD, ANCHOR = 1, 2, 3
CHAIN_BYTES = 16
_FRONT = struct.Struct("<IIB")
_HEADER = struct.Struct(f"<8sQQ{CHAIN_BYTES}s")
_MAGIC = b"penstkJ1"
_MAC_BYTES = 32
_ANCHOR_START = _MAC_BYTES.to_bytes(4, "little")
SMALLEST = _FRONT.size + CHAIN_BYTES

_KINDS = {kind: bytes((kind,)) for kind in (HEADER, RECORD, ANCHOR)}


class Frame(NamedTuple):
    """One frame as it was read."""

    kind: int
    payload: bytes
    chain: bytes
    size: int
    """Bytes in the file."""


class FileHeader(NamedTuple):
    """What a file says of itself."""

    number: int
    ended_before: int
    chain_before: bytes


def first_chain(source: str) -> bytes:
    """The chain before a source's first frame."""
    return hashlib.sha256(b"penstock journal of " + source.encode()).digest()[:CHAIN_BYTES]


def next_chain(chain: bytes, kind: int, payload: bytes) -> bytes:
    """The chain of a frame that follows ``chain``."""
    return hashlib.sha256(chain + _KINDS[kind] + payload).digest()[:CHAIN_BYTES]


def frame(chain: bytes, kind: int, payload: bytes) -> tuple[bytes, bytes]:
    """The frame's bytes, and the chain after it."""
    letter = _KINDS[kind]
    after = hashlib.sha256(chain + letter + payload).digest()[:CHAIN_BYTES]
    rest = letter + payload + after
    checksum = zlib.crc32(rest)
    return len(payload).to_bytes(4, "little") + checksum.to_bytes(4, "little") + rest, after


def header(given: FileHeader) -> tuple[bytes, bytes]:
    """A file's first frame, and the chain after it."""
    return frame(given.chain_before, HEADER, _HEADER.pack(_MAGIC, *given))


def read_header(payload: bytes) -> FileHeader | None:
    """The header, unless it is none of ours."""
    if len(payload) != _HEADER.size:
        return None
    magic, number, ended_before, chain_before = _HEADER.unpack(payload)
    return FileHeader(number, ended_before, chain_before) if magic == _MAGIC else None


def anchor(key: bytes, chain: bytes) -> tuple[bytes, bytes]:
    """An anchor's frame, and the chain after it."""
    return frame(chain, ANCHOR, anchor_of(key, chain))


def anchor_of(key: bytes, chain: bytes) -> bytes:
    """What an anchor that follows ``chain`` must hold."""
    return hmac.digest(key, chain, "sha256")


def read_frame(data: bytes | memoryview, offset: int) -> Frame | None:
    """The frame at ``offset`` if all of it is there and its checksum is right."""
    if len(data) - offset < SMALLEST:
        return None
    length, checksum, kind = _FRONT.unpack_from(data, offset)
    end = offset + SMALLEST + length
    if end > len(data) or kind not in _KINDS:
        return None
    rest = bytes(data[offset + 8 : end])
    if zlib.crc32(rest) != checksum:
        return None
    return Frame(kind, rest[1:-CHAIN_BYTES], rest[-CHAIN_BYTES:], end - offset)


def anchor_follows(data: bytes, offset: int) -> bool:
    """Whether a whole anchor lies anywhere behind ``offset``.

    What lies before an anchor was on the disk once, so it cannot be the torn end of a file.
    """
    while (offset := data.find(_ANCHOR_START, offset)) >= 0:
        found = read_frame(data, offset)
        if found is not None and found.kind == ANCHOR:
            return True
        offset += 1
    return False
