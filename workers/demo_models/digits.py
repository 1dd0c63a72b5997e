"""digits: reads handwritten digits (image-classification, a small ResNet)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from penstock.service.packages import ModelSpec

SEED = 20260103
SIDE = 32
EPOCHS = 12
BATCH = 64
LEARNING_RATE = 4e-3
CARD = """
## Data

The 1,797 handwritten digits (8 x 8 pixels, 17 grey levels, from NIST) bundled with scikit-learn;
a fifth, with each digit in proportion, is kept for the test. They are shown to the model enlarged
to 32 x 32, shifted, and light on dark as often as dark on light.

## Training

A ResNet of three narrow stages (Hugging Face transformers), trained from nothing. `accuracy` is on
the unseen fifth as it is, `accuracy_inverted` on the same digits dark on light.

## Limits

It knows digits that fill the picture, one at a time, in the hand of NIST's writers.
"""


def picture(pixels: NDArray[np.float64]) -> Image.Image:
    """A digit of 8 x 8 values from 0 to 16 as an RGB image of the model's size."""
    small = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")


def build(out: Path) -> ModelSpec:
    """Trains on four fifths, measures on one, writes a Hugging Face checkpoint."""
    torch.manual_seed(SEED)
    data = load_digits()
    processor = ViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    images = [picture(pixels) for pixels in data.images]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    labels = torch.tensor(data.target)
    known, unseen = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=SEED, stratify=data.target
    )
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        id2label={digit: str(digit) for digit in range(10)},
        label2id={str(digit): digit for digit in range(10)},
    )
    model = ResNetForImageClassification(config)
    train(model, pixels[known], labels[known])
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return ModelSpec(
        name="digits",
        version="1",
        task="image-classification",
        runtime="transformers",
        weights="model.safetensors",
        description="Reads one handwritten digit from an image of any size. A demonstration.",
        license="Apache-2.0",
        labels=tuple(str(digit) for digit in range(10)),
        max_batch=64,
        quality={
            "accuracy": accuracy(model, pixels[unseen], labels[unseen]),
            "accuracy_inverted": accuracy(model, -pixels[unseen], labels[unseen]),
        },
    )


def train(model: ResNetForImageClassification, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    """Fits the model to pixels [rows, 3, side, side], shifted and inverted at random."""
    steps = EPOCHS * (len(labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            shift = torch.randint(-3, 4, (2,)).tolist()
            shown = torch.roll(pixels[rows], shift, dims=(2, 3))
            inverted = torch.rand(len(rows), 1, 1, 1) < 0.5
            shown = torch.where(inverted, -shown, shown)
            loss = model(pixel_values=shown, labels=labels[rows]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.train(False)


def accuracy(
    model: ResNetForImageClassification, pixels: torch.Tensor, labels: torch.Tensor
) -> float:
    """Share of the rows whose best label is right."""
    with torch.inference_mode():
        best = model(pixel_values=pixels).logits.argmax(dim=-1)
    return round(float((best == labels).float().mean()), 4)
