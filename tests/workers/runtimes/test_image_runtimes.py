"""The image runtimes through a real tritonserver, against the same checkpoints run directly."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from tests.workers.runtimes.served import ServedModels, refusal
from tests.workers.runtimes.test_images import bomb
from workers.demo_models.average_precision import overlap
from workers.demo_models.shape_scenes import SIDE, draw_scene

IMAGE_MODELS = ("digits", "scenes")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def digit(row: int, side: int) -> Image.Image:
    pixels = (load_digits().images[row] * 15).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def scenes(count: int, side: int) -> list[Image.Image]:
    rng = random.Random(9)
    return [draw_scene(rng, side).picture for _ in range(count)]


def detections(answer: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(answer)
    return content


async def test_scores_equal_those_of_transformers(served: ServedModels) -> None:
    images = [digit(row, 20 + 30 * row) for row in range(10)]
    outputs = await served.infer("digits", [png(image) for image in images])
    processors: Any = AutoImageProcessor
    processor = processors.from_pretrained(served.package("digits"))
    model: Any = AutoModelForImageClassification.from_pretrained(served.package("digits"))
    inputs = processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits.softmax(dim=-1).numpy()
    np.testing.assert_allclose(outputs["scores"], expected, atol=1e-5)
    right = outputs["scores"].argmax(axis=1) == load_digits().target[:10]
    assert right.sum() >= 9


async def test_boxes_equal_those_of_the_transformers_pipeline(served: ServedModels) -> None:
    images = [*scenes(4, SIDE), *scenes(3, 300), scenes(1, 200)[0].resize((320, 150))]
    outputs = await served.infer("scenes", [png(image) for image in images])
    reference: Any = pipeline("object-detection", model=str(served.package("scenes")), device="cpu")
    for image, answer in zip(images, outputs["detections"][:, 0], strict=True):
        ours = detections(answer)
        assert (ours["width"], ours["height"]) == image.size
        theirs = reference(image, threshold=0.3)
        sure = [one for one in ours["detections"] if one["score"] >= 0.3]
        assert [one["label"] for one in sure] == [one["label"] for one in theirs]
        for one, other in zip(sure, theirs, strict=True):
            box = [other["box"][edge] for edge in ("xmin", "ymin", "xmax", "ymax")]
            # The pipeline cuts to whole pixels, and does not clip to the image.
            np.testing.assert_allclose(one["box"], np.clip(box, 0, max(image.size)), atol=1.01)
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)


async def test_shapes_are_found_where_they_were_drawn(served: ServedModels) -> None:
    rng = random.Random(11)
    drawn = [draw_scene(rng, 256) for _ in range(16)]
    outputs = await served.infer("scenes", [png(scene.picture) for scene in drawn])
    hits = total = 0
    for scene, answer in zip(drawn, outputs["detections"][:, 0], strict=True):
        found = [one for one in detections(answer)["detections"] if one["score"] > 0.3]
        total += len(scene.shapes)
        hits += sum(
            any(
                one["label"] == shape.label and overlap(tuple(one["box"]), shape.box) > 0.5
                for one in found
            )
            for shape in scene.shapes
        )
    assert hits >= 0.7 * total


async def test_detections_come_best_first_inside_the_picture(served: ServedModels) -> None:
    outputs = await served.infer("scenes", [png(image) for image in scenes(8, 120)])
    for answer in outputs["detections"][:, 0]:
        found = detections(answer)["detections"]
        scores = [one["score"] for one in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= edge <= 120 for one in found for edge in one["box"])


@pytest.mark.parametrize("model", IMAGE_MODELS)
async def test_images_together_equal_images_alone(served: ServedModels, model: str) -> None:
    images = [png(image) for side in (40, 64, 200) for image in scenes(4, side)]
    (name,) = (await served.infer(model, images[:1])).keys()
    together = (await served.infer(model, images))[name]
    for row, image in enumerate(images):
        alone = (await served.infer(model, [image]))[name]
        if name == "scores":
            np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
        else:
            one, other = detections(together[row, 0]), detections(alone[0, 0])
            assert [d["label"] for d in one["detections"]] == [
                d["label"] for d in other["detections"]
            ]
            for a, b in zip(one["detections"], other["detections"], strict=True):
                np.testing.assert_allclose(a["box"], b["box"], atol=0.01)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "must be an image in one of the formats PNG, JPEG, WEBP, BMP, GIF"),
        (b"", "must be an image in one of the formats PNG, JPEG, WEBP, BMP, GIF"),
        (png(scenes(1, 64)[0])[:-60], "is corrupt or cut short"),
        (bomb(60_000, 60_000), "must have at most 50,000,000 pixels"),
    ],
)
@pytest.mark.parametrize("model", IMAGE_MODELS)
async def test_a_bad_image_is_refused_and_its_companions_are_answered(
    served: ServedModels, model: str, content: bytes, message: str
) -> None:
    good = png(scenes(1, 64)[0])
    requests = [[good], [good, content, good], *([[good]] * 14)]
    answers = await served.infer_each(model, requests)
    expected = {"reason": "FIELD_INVALID", "field": "images", "message": message}
    assert refusal(answers.pop(1)) == expected
    assert all(isinstance(answer, dict) for answer in answers)


async def test_triton_merges_images(served: ServedModels) -> None:
    good = png(scenes(1, 64)[0])
    await served.infer_each("scenes", [[good]] * 24)
    assert await served.largest_merge("scenes") > 2
