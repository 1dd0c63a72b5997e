"""Draws pictures of coloured shapes and says where each is."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from workers.demo_models.average_precision import Box

SIDE = 64
"""Pixels, both ways."""
LABELS = ("circle", "square", "triangle")
SMALLEST, LARGEST = SIDE // 6, SIDE * 5 // 12
MOST_SHAPES = 4
PLACING_TRIES = 20
LEAST_CONTRAST = 180
"""Difference of a shape's colour from the ground's, summed over red, green and blue."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """One shape and the box around it in pixels: left, top, right, bottom."""

    label: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it, at least one shape."""

    picture: Image.Image
    shapes: tuple[Shape, ...]


def draw_scene(rng: random.Random, side: int = SIDE) -> Scene:
    """A picture of the same layout at any size, ``side`` pixels both ways."""
    scale = side / SIDE
    low, high = (150, 255) if rng.random() < 0.5 else (0, 90)
    ground = (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))
    picture = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(picture)
    taken: list[Box] = []
    shapes: list[Shape] = []
    for _ in range(rng.randint(1, MOST_SHAPES)):
        box = free_place(rng, taken)
        if box is None:
            continue
        taken.append(box)
        label = rng.choice(LABELS)
        left, top, right, bottom = (edge * scale for edge in box)
        draw_shape(draw, label, (left, top, right - 1, bottom - 1), colour_on(rng, ground))
        shapes.append(Shape(label, (left, top, right, bottom)))
    return Scene(picture, tuple(shapes))


def free_place(rng: random.Random, taken: list[Box]) -> Box | None:
    """A square that touches none of those taken; None when luck runs out."""
    for _ in range(PLACING_TRIES):
        size = rng.randint(SMALLEST, LARGEST)
        left, top = rng.randint(0, SIDE - size), rng.randint(0, SIDE - size)
        right, bottom = left + size, top + size
        if all(right < l or r < left or bottom < t or b < top for l, t, r, b in taken):  # noqa: E741
            return left, top, right, bottom
    return None


def colour_on(rng: random.Random, ground: Colour) -> Colour:
    """A colour that stands out from the ground."""
    while True:
        colour = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) > LEAST_CONTRAST:
            return colour


def draw_shape(draw: ImageDraw.ImageDraw, label: str, box: Box, colour: Colour) -> None:
    """Fills one shape into its box."""
    left, top, right, bottom = box
    if label == "circle":
        draw.ellipse(box, fill=colour)
    elif label == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=colour)
