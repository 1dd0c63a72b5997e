"""Encoded images from strangers."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from workers.runtimes.images import FORMATS, MAX_PIXELS, decode_image
from workers.runtimes.refusals import Refusal


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_promised_format_is_read(kind: str) -> None:
    image = decode_image(encoded(NOISE, kind))
    assert (image.size, image.mode) == ((60, 40), "RGB")


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    source = Image.new(mode, (5, 4))
    image = decode_image(encoded(source, "JPEG" if mode == "CMYK" else "PNG"))
    assert (image.size, image.mode) == ((5, 4), "RGB")


def test_a_picture_taken_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(NOISE, "JPEG", exif=exif)).size == (40, 60)


def test_only_the_first_frame_of_an_animation_is_read() -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    image = decode_image(encoded(red, "GIF", save_all=True, append_images=[blue]))
    assert image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(MAX_PIXELS // 1000 + 1, 1000), (30_000, 30_000), (2**31 - 1, 2)])
def test_an_image_that_claims_too_many_pixels_is_refused_before_it_is_decoded(
    size: tuple[int, int],
) -> None:
    with pytest.raises(Refusal, match="at most 50,000,000 pixels"):
        decode_image(bomb(*size))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        b"\x89PNG\r\n\x1a\n",
        encoded(NOISE)[:-400],
        encoded(NOISE, "JPEG")[:200],
        encoded(NOISE, "WEBP")[:-200],
        encoded(NOISE, "GIF")[:-600],
        bomb(50, 50),
        encoded(NOISE, "TIFF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "text",
    ],
)
def test_what_is_no_whole_image_of_a_promised_format_is_refused(content: object) -> None:
    with pytest.raises(Refusal) as caught:
        decode_image(content)
    assert (caught.value.reason, caught.value.field) == ("FIELD_INVALID", "images")
