"""Encoded images to pixels, refusing what is broken, unknown or too large to hold in memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor

from workers.runtimes.launch import Launch
from workers.runtimes.refusals import Refusal

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""The only decoders that bytes from outside reach."""
MAX_PIXELS = 50_000_000
"""Largest image, width times height; decoded, it takes three bytes a pixel."""


def decode_image(content: object) -> Image.Image:
    """An upright RGB image, its first frame. Raises Refusal.

    The size is checked in the header, before a single pixel is decoded.
    """
    if not isinstance(content, bytes):
        raise Refusal("FIELD_INVALID", "images", "must be an encoded image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large() from error
    except Exception as error:  # decoders raise many kinds on what is no image
        message = f"must be an image in one of the formats {', '.join(FORMATS)}"
        raise Refusal("FIELD_INVALID", "images", message) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large()
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:
        raise Refusal("FIELD_INVALID", "images", "is corrupt or cut short") from error


def _too_large() -> Refusal:
    return Refusal("FIELD_INVALID", "images", f"must have at most {MAX_PIXELS:,} pixels")


class ImageReader:
    """A package's image processor."""

    def __init__(self, launch: Launch) -> None:
        auto: Any = AutoImageProcessor
        self.processor = auto.from_pretrained(
            launch.package, local_files_only=True, trust_remote_code=False
        )

    def pixels(self, image: Image.Image) -> dict[str, torch.Tensor]:
        """One image as model inputs, without the batch axis.

        Each image is prepared alone: prepared together, images of different sizes pad each other,
        which changes the answers of models that take no mask.
        """
        inputs = self.processor(images=image, return_tensors="pt")
        return {name: tensor[0] for name, tensor in inputs.items()}


def equal_shapes(
    rows: Sequence[dict[str, torch.Tensor]], images: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Batches of at most so many images whose inputs have one shape: row indexes and tensors."""
    by_shape: dict[tuple[torch.Size, ...], list[int]] = {}
    for index, row in enumerate(rows):
        by_shape.setdefault(tuple(tensor.shape for tensor in row.values()), []).append(index)
    for indexes in by_shape.values():
        for start in range(0, len(indexes), images):
            group = indexes[start : start + images]
            names = rows[group[0]]
            yield group, {name: torch.stack([rows[row][name] for row in group]) for name in names}
