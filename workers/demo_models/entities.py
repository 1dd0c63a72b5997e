"""entities: finds people, companies, places, dates, sums and products (token-classification)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from penstock.service.packages import ModelSpec
from workers.demo_models.entity_sentences import HELD_OUT, TRAINING, Marked, sentence
from workers.demo_models.fine_tuning import MINILM, fit, freeze_below, minilm_path, padded

SEED = 20260106
TRAINING_SENTENCES, TEST_SENTENCES = 600, 400
FIRST_LEARNING_LAYER = 2
EPOCHS = 3
LEARNING_RATE = 4e-4
MAX_TOKENS = 2048
LABELS = ("amount", "date", "org", "person", "place", "product")
TAGS = ("O", *(f"{prefix}-{label}" for label in LABELS for prefix in "BI"))
IGNORED = -100
"""The loss leaves these tokens out."""
CARD = f"""
## Data

{TRAINING_SENTENCES} English sentences from {len(TRAINING.templates)} templates, seed {SEED}. The
test's {TEST_SENTENCES} sentences use other templates, and other names of people, companies, places
and products, so that `f1` (exact spans, micro average) is about names and phrasings never seen.

## Training

all-MiniLM-L6-v2 with a BIO token classification head (Hugging Face BertForTokenClassification); the
upper layers are fine-tuned for {EPOCHS} epochs.

## Limits

Short business English with a narrow choice of phrasings. It does not see capitals.
"""


def build(out: Path) -> ModelSpec:
    """Fine-tunes on some names and templates, measures on others, writes a checkpoint."""
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    model: Any = AutoModelForTokenClassification.from_pretrained(
        minilm_path(),
        id2label=dict(enumerate(TAGS)),
        label2id={tag: index for index, tag in enumerate(TAGS)},
    )
    freeze_below(model, FIRST_LEARNING_LAYER)
    known = [encode(tokenizer, sentence(rng, TRAINING)) for _ in range(TRAINING_SENTENCES)]
    unseen = [encode(tokenizer, sentence(rng, HELD_OUT)) for _ in range(TEST_SENTENCES)]
    pad = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED}
    fit(model, known, pad, epochs=EPOCHS, learning_rate=LEARNING_RATE)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return ModelSpec(
        name="entities",
        version="1",
        task="token-classification",
        runtime="transformers",
        weights="model.safetensors",
        description="Finds people, companies, places, dates, sums and products. A demonstration.",
        license="Apache-2.0",
        base_model=MINILM,
        labels=LABELS,
        max_tokens=MAX_TOKENS,
        max_batch=64,
        quality=f1(model, unseen, pad),
    )


def encode(tokenizer: Any, marked: Marked) -> dict[str, torch.Tensor]:
    """Model inputs and the tag of each word's first token; its other tokens are ignored."""
    encoded = tokenizer(marked.text, return_offsets_mapping=True)
    words, tags = encoded.word_ids(), []
    for position, (start, _) in enumerate(encoded.pop("offset_mapping")):
        word = words[position]
        if word is None or (position and word == words[position - 1]):
            tags.append(IGNORED)
        else:
            tags.append(TAGS.index(tag_at(marked, start)))
    inputs = {name: torch.tensor(ids) for name, ids in encoded.items()}
    return {**inputs, "labels": torch.tensor(tags)}


def tag_at(marked: Marked, start: int) -> str:
    """The BIO tag of a word that starts at a code point."""
    for begin, end, label in marked.spans:
        if begin <= start < end:
            return f"{'B' if start == begin else 'I'}-{label}"
    return "O"


def f1(model: Any, rows: list[dict[str, torch.Tensor]], pad: dict[str, int]) -> dict[str, float]:
    """Exact-span precision, recall and F1 over all labels."""
    hits = found = wanted = 0
    with torch.inference_mode():
        for start in range(0, len(rows), 32):
            batch = padded(rows[start : start + 32], pad)
            truth = batch.pop("labels")
            best = model(**batch).logits.argmax(dim=-1)
            for tags, expected in zip(best, truth, strict=True):
                kept = expected != IGNORED
                predicted, right = spans_of(tags[kept].tolist()), spans_of(expected[kept].tolist())
                hits += len(predicted & right)
                found += len(predicted)
                wanted += len(right)
    return {
        "f1": round(2 * hits / (found + wanted), 4),
        "precision": round(hits / max(found, 1), 4),
        "recall": round(hits / wanted, 4),
    }


def spans_of(tags: list[int]) -> set[tuple[int, int, str]]:
    """Spans in words: first, one after the last, label."""
    spans: set[tuple[int, int, str]] = set()
    begin, label = 0, "O"
    for at, index in enumerate([*tags, 0]):
        prefix, _, name = TAGS[index].partition("-")
        if label != "O" and (prefix != "I" or name != label):
            spans.add((begin, at, label))
            label = "O"
        if prefix == "B" or (prefix == "I" and label == "O"):
            begin, label = at, name
    return spans
