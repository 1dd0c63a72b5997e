"""Images are judged by their headers: kind, size, honesty; nothing is decoded."""

from __future__ import annotations

import io
import random
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.validation.images import MAX_IMAGE_BYTES, image_fault, webp_size
from tests.gateway.pictures import picture, png_header

KINDS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "GIF": "image/gif",
}


@pytest.mark.parametrize(("kind", "media_type"), KINDS.items())
def test_an_honest_image_passes_with_and_without_its_media_type(kind: str, media_type: str) -> None:
    data = picture(kind)
    for named in ("", media_type, media_type.upper(), f"{media_type}; charset=binary"):
        assert image_fault(data, named) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_media_type_that_contradicts_the_bytes_is_refused(kind: str) -> None:
    wrong = "image/png" if kind != "PNG" else "image/jpeg"
    assert image_fault(picture(kind), wrong) == (
        "media_type",
        f"says '{wrong}'; the bytes are {KINDS[kind]}",
    )


def test_a_common_other_name_of_jpeg_is_no_contradiction() -> None:
    assert image_fault(picture("JPEG"), "image/jpg") is None


def test_a_png_that_promises_4_gigapixels_is_refused_before_decoding() -> None:
    bomb = png_header(65_500, 65_500)
    started = time.perf_counter()
    assert image_fault(bomb) == (
        "data",
        "has 65500 x 65500 pixels; at most 40,000,000 are allowed",
    )
    assert time.perf_counter() - started < 0.05


def _jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(picture("JPEG"))
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def _gif_of(width: int, height: int) -> bytes:
    data = bytearray(picture("GIF"))
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


def _bmp_of(width: int, height: int) -> bytes:
    data = bytearray(picture("BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def _webp_of(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


@pytest.mark.parametrize(
    "bomb", [_jpeg_of(65_000, 65_000), _gif_of(65_000, 65_000), _bmp_of(65_000, 65_000)]
)
def test_bombs_of_other_formats_are_refused_too(bomb: bytes) -> None:
    assert image_fault(bomb) == (
        "data",
        "has 65000 x 65000 pixels; at most 40,000,000 are allowed",
    )


def test_a_webp_canvas_of_268_megapixels_is_refused() -> None:
    assert image_fault(_webp_of(16_383, 16_383)) == (
        "data",
        "has 16383 x 16383 pixels; at most 40,000,000 are allowed",
    )


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_the_size_of_every_kind_of_webp_is_read(lossless: bool, alpha: bool) -> None:
    encoded = io.BytesIO()
    still = Image.new("RGBA" if alpha else "RGB", (123, 45), (1, 2, 3, 4) if alpha else (1, 2, 3))
    still.save(encoded, "WEBP", lossless=lossless)
    assert webp_size(encoded.getvalue()) == (123, 45)


def test_a_gif_may_move_and_others_may_not() -> None:
    assert image_fault(picture("GIF", frames=3)) is None
    for kind in ("PNG", "WEBP"):
        assert image_fault(picture(kind, frames=3)) == (
            "data",
            f"is an animation; send one frame as a still {KINDS[kind]}",
        )


@pytest.mark.parametrize(
    "data",
    [b"%PDF-1.7", b"<svg/>", b"\x00" * 100, b"II*\x00" + bytes(50), b"hello", b"B"],
)
def test_what_is_no_image_of_a_known_format_is_refused(data: bytes) -> None:
    assert image_fault(data) == ("data", "is not a PNG, JPEG, WebP, BMP or GIF image")


def test_empty_and_too_large_data_are_refused() -> None:
    assert image_fault(b"") == ("data", "is empty")
    large = picture("PNG") + bytes(MAX_IMAGE_BYTES)
    fault = image_fault(large)
    assert fault is not None
    assert fault[1].endswith("at most 16,777,216 are allowed")


@pytest.mark.parametrize(("kind", "media_type"), KINDS.items())
def test_an_image_cut_off_within_its_header_is_corrupt(kind: str, media_type: str) -> None:
    fault = image_fault(picture(kind)[:20])
    assert fault == ("data", f"is a corrupt {media_type}")


@given(kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 2**32))
def test_damaged_headers_are_judged_and_never_crash(kind: str, seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(picture(kind))
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(4, min(len(data), 80))] = dice.randrange(256)
    fault = image_fault(bytes(data))
    assert fault is None or fault[0] == "data"
