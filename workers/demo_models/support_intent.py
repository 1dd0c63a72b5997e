"""support-intent: tells what a support ticket wants (text-classification, from MiniLM)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from penstock.service.packages import ModelSpec
from workers.demo_models.fine_tuning import MINILM, fit, freeze_below, minilm_path, padded
from workers.demo_models.support_tickets import HELD_OUT, TRAINING, tickets

SEED = 20260105
TICKETS_PER_TEMPLATE = 8
FIRST_LEARNING_LAYER = 4
EPOCHS = 3
LEARNING_RATE = 4e-4
MAX_TOKENS = 256
LABELS = tuple(TRAINING)
CARD = f"""
## Data

Support tickets in English written from {sum(map(len, TRAINING.values()))} templates, seed {SEED}:
products, dates, addresses and order numbers filled in, with greetings, closings, lower case and
misspellings. The test uses {sum(map(len, HELD_OUT.values()))} other templates, written separately,
so that `accuracy` is about phrasings never seen in training.

## Training

all-MiniLM-L6-v2 with a classification head (Hugging Face BertForSequenceClassification); the
upper layers are fine-tuned for {EPOCHS} epochs.

## Limits

A web shop's tickets, in English, one wish a ticket. It has no label for anything else.
"""


def build(out: Path) -> ModelSpec:
    """Fine-tunes on some templates, measures on others, writes a Hugging Face checkpoint."""
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    tokenizer = AutoTokenizer.from_pretrained(minilm_path(), model_max_length=MAX_TOKENS)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        minilm_path(),
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        problem_type="single_label_classification",
    )
    freeze_below(model, FIRST_LEARNING_LAYER)
    known = encode(tokenizer, tickets(rng, TRAINING, TICKETS_PER_TEMPLATE))
    unseen = encode(tokenizer, tickets(rng, HELD_OUT, TICKETS_PER_TEMPLATE))
    pad = {"input_ids": tokenizer.pad_token_id}
    fit(model, known, pad, epochs=EPOCHS, learning_rate=LEARNING_RATE)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return ModelSpec(
        name="support-intent",
        version="1",
        task="text-classification",
        runtime="transformers",
        weights="model.safetensors",
        description="Tells what a web shop's support ticket wants. A demonstration.",
        license="Apache-2.0",
        base_model=MINILM,
        labels=LABELS,
        max_tokens=MAX_TOKENS,
        max_batch=64,
        quality={"accuracy": accuracy(model, unseen, pad)},
    )


def encode(tokenizer: Any, written: list[tuple[str, str]]) -> list[dict[str, torch.Tensor]]:
    """Model inputs and the label of each ticket."""
    return [
        {
            **{name: torch.tensor(ids) for name, ids in tokenizer(text, truncation=True).items()},
            "labels": torch.tensor(LABELS.index(intent)),
        }
        for text, intent in written
    ]


def accuracy(model: Any, rows: list[dict[str, torch.Tensor]], pad: dict[str, int]) -> float:
    """Share of the rows whose best label is right."""
    right = 0
    with torch.inference_mode():
        for start in range(0, len(rows), 32):
            batch = padded(rows[start : start + 32], pad)
            labels = batch.pop("labels")
            right += int((model(**batch).logits.argmax(dim=-1) == labels).sum())
    return round(right / len(rows), 4)
