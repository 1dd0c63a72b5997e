"""Looks at an image's header only: what it is and how large, before anything is decoded.

A few bytes can promise gigabytes of pixels (a decompression bomb): the size comes from the header.
Formats: Pillow's plugins read the headers of PNG, JPEG, BMP and GIF and decode nothing until asked;
WebP's is read here, because Pillow sets up its decoder first. WebP: RFC 9649.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Protocol

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from gateway.validation.fields import Violations, check_count, quote

MAX_IMAGE_BYTES = 16 * 1024 * 1024
"""Encoded bytes of one image."""
MAX_PIXELS = 40_000_000
"""Pixels of one image: 120 MB once decoded to RGB."""

_ANIMATED = 0x02
_ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp", "image/x-bmp": "image/bmp"}


class EncodedImage(Protocol):
    """An image as a message carries it."""

    @property
    def data(self) -> bytes: ...
    @property
    def media_type(self) -> str: ...


class _Corrupt(Exception):
    """The header is not what its format asks for."""


class _Animated(Exception):
    """There is more than one frame, and the format's first has no meaning of its own."""


def check_images(
    field: str, images: Sequence[EncodedImage], most: int, violations: Violations
) -> None:
    """Checks that there are 1 to ``most`` images that a model can be given."""
    if check_count(field, len(images), most, violations):
        for index, image in enumerate(images):
            fault = image_fault(image.data, image.media_type)
            if fault:
                at, description = fault
                violations.add(f"{field}[{index}].{at}", description)


def image_fault(data: bytes, media_type: str = "") -> tuple[str, str] | None:
    """What is wrong with an encoded image, as (field, description); None when nothing is."""
    if not data:
        return "data", "is empty"
    if len(data) > MAX_IMAGE_BYTES:
        return "data", f"has {len(data):,} bytes; at most {MAX_IMAGE_BYTES:,} are allowed"
    kind = _kind(data)
    if kind is None:
        return "data", "is not a PNG, JPEG, WebP, BMP or GIF image"
    found, read_size = kind
    if media_type:
        named = media_type.partition(";")[0].strip().lower()
        if _ALIASES.get(named, named) != found:
            return "media_type", f"says {quote(media_type)}; the bytes are {found}"
    try:
        width, height = read_size(data)
    except _Animated:
        return "data", f"is an animation; send one frame as a still {found}"
    except _Corrupt:
        return "data", f"is a corrupt {found}"
    if width < 1 or height < 1:
        return "data", f"is a corrupt {found}"
    if width * height > MAX_PIXELS:
        return "data", f"has {width} x {height} pixels; at most {MAX_PIXELS:,} are allowed"
    return None


def _kind(data: bytes) -> tuple[str, Callable[[bytes], tuple[int, int]]] | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png", _png_size
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg", lambda data: _opened(JpegImageFile, data).size
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp", webp_size
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif", lambda data: _opened(GifImageFile, data).size
    if data.startswith(b"BM"):
        return "image/bmp", lambda data: _opened(BmpImageFile, data).size
    return None


def _opened(plugin: type[ImageFile], data: bytes) -> ImageFile:
    try:
        return plugin(BytesIO(data))
    except Exception as error:
        # Whatever a parser of hostile bytes raises, it is the caller's image that is at fault.
        raise _Corrupt from error


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR" or len(data) < 24:
        raise _Corrupt
    width, height = struct.unpack_from(">II", data, 16)
    if width * height > MAX_PIXELS:
        return width, height
    image = _opened(PngImageFile, data)
    if getattr(image, "is_animated", False):
        raise _Animated
    return image.size


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height as the first chunk tells them."""
    chunk = data[12:16]
    try:
        if chunk == b"VP8X":
            if data[20] & _ANIMATED:
                raise _Animated
            width = 1 + int.from_bytes(data[24:27], "little")
            height = 1 + int.from_bytes(data[27:30], "little")
            if len(data) < 30:
                raise _Corrupt
            return width, height
        if chunk == b"VP8L" and data[20] == 0x2F:
            (bits,) = struct.unpack_from("<I", data, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    except (IndexError, struct.error) as error:
        raise _Corrupt from error
    raise _Corrupt
