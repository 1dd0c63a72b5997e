"""scenes: finds coloured shapes in pictures (object-detection, a small RT-DETR)."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from penstock.service.packages import ModelSpec
from workers.demo_models.average_precision import Box, Found, average_precision
from workers.demo_models.shape_scenes import LABELS, SIDE, Scene, draw_scene

SEED = 20260104
STEPS = 800
WARM_UP_STEPS = 30
BATCH = 32
LEARNING_RATE = 2e-3
TEST_SCENES = 300
CARD = f"""
## Data

Drawn while training, seed {SEED}: {STEPS * BATCH:,} pictures of {SIDE} x {SIDE} pixels, each with
one to four circles, squares and triangles in any colours that stand out, not overlapping. The test
is {TEST_SCENES} further pictures of the same kind.

## Training

RT-DETR (Hugging Face transformers) with a narrow ResNet, one feature level and one decoder layer,
trained from nothing. `map_50` is the mean over the labels of the average precision at an overlap
(IoU) of one half; `f1_50` counts detections that score at least one half.

## Limits

Flat shapes on plain grounds, a sixth to two fifths of the picture wide. Nothing else.
"""


def build(out: Path) -> ModelSpec:
    """Trains on drawn scenes, measures on others, writes a Hugging Face checkpoint."""
    torch.manual_seed(SEED)
    processor = RTDetrImageProcessorPil(size={"height": SIDE, "width": SIDE})
    model = RTDetrForObjectDetection(config())
    train(model, processor, random.Random(SEED))
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return ModelSpec(
        name="scenes",
        version="1",
        task="object-detection",
        runtime="transformers",
        weights="model.safetensors",
        description="Finds circles, squares and triangles in a picture. A demonstration.",
        license="Apache-2.0",
        labels=LABELS,
        max_batch=32,
        quality=measure(model, processor, random.Random(SEED + 1)),
    )


def config() -> Any:
    """One feature level of stride 8 and one decoder layer: what learns fastest on one core."""
    width, channels = 64, [16, 32]
    resnet: Any = RTDetrResNetConfig  # its annotations leave out_indices out
    backbone = resnet(
        embedding_size=16,
        hidden_sizes=channels,
        depths=[1, 1],
        layer_type="basic",
        out_indices=[2],
    )
    return RTDetrConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        d_model=width,
        encoder_hidden_dim=width,
        encoder_in_channels=channels[-1:],
        feat_strides=[8],
        encode_proj_layers=[0],
        encoder_ffn_dim=2 * width,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        num_feature_levels=1,
        decoder_in_channels=[width],
        decoder_ffn_dim=2 * width,
        decoder_attention_heads=4,
        decoder_layers=1,
        num_queries=20,
        num_denoising=0,
    )


def train(
    model: RTDetrForObjectDetection, processor: RTDetrImageProcessorPil, rng: random.Random
) -> None:
    """Fits the model to freshly drawn scenes."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    model.train()
    for step in range(STEPS):
        warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_up * max(cosine, 0.02)
        scenes = [draw_scene(rng) for _ in range(BATCH)]
        loss = model(pixels(processor, scenes), labels=[target(scene) for scene in scenes]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.train(False)


def measure(
    model: RTDetrForObjectDetection, processor: RTDetrImageProcessorPil, rng: random.Random
) -> dict[str, float]:
    """Mean average precision and F1 at an overlap of one half, over fresh scenes."""
    scenes = [draw_scene(rng) for _ in range(TEST_SCENES)]
    with torch.inference_mode():
        outputs = model(pixels(processor, scenes))
    sizes = [(SIDE, SIDE)] * len(scenes)
    results = processor.post_process_object_detection(outputs, 0.0, sizes)
    found = [
        Found(image, LABELS[label], score, as_box(box))
        for image, result in enumerate(results)
        for label, score, box in zip(
            result["labels"].tolist(),
            result["scores"].tolist(),
            result["boxes"].tolist(),
            strict=True,
        )
    ]
    truth = [
        (image, shape.label, shape.box)
        for image, scene in enumerate(scenes)
        for shape in scene.shapes
    ]
    figures = average_precision(found, truth)
    return {name: round(value, 4) for name, value in figures.items()}


def pixels(processor: RTDetrImageProcessorPil, scenes: list[Scene]) -> torch.Tensor:
    """The scenes' pictures as the model takes them, FP32 [scenes, 3, side, side]."""
    images: list[Image.Image] = [scene.picture for scene in scenes]
    prepared: torch.Tensor = processor(images=images, return_tensors="pt")["pixel_values"]
    return prepared


def target(scene: Scene) -> dict[str, torch.Tensor]:
    """Labels and boxes (centre and size, in shares of the picture) for the training loss."""
    boxes = torch.tensor([shape.box for shape in scene.shapes]) / SIDE
    low, high = boxes[:, :2], boxes[:, 2:]
    return {
        "class_labels": torch.tensor([LABELS.index(shape.label) for shape in scene.shapes]),
        "boxes": torch.cat([(low + high) / 2, high - low], dim=1),
    }


def as_box(corners: list[float]) -> Box:
    """Four numbers as a box."""
    left, top, right, bottom = corners
    return left, top, right, bottom
