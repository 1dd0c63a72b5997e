"""Small pictures of every format, and some that are made to hurt."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

from PIL import Image


@cache
def picture(kind: str, size: tuple[int, int] = (40, 30), frames: int = 1) -> bytes:
    """An encoded picture; several frames make an animation."""
    stills = [Image.new("RGB", size, (40 * frame, 80, 120)) for frame in range(frames)]
    encoded = io.BytesIO()
    if frames == 1:
        stills[0].save(encoded, kind)
    else:
        stills[0].save(encoded, kind, save_all=True, append_images=stills[1:], duration=100)
    return encoded.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A valid PNG that promises width x height pixels and holds a few bytes of zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
