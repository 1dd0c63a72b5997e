"""What follows the encoder in a sentence-transformers checkpoint: pooling, dense, normalising.

Layout: ``modules.json`` lists the steps, each a directory with its ``config.json``
(https://sbert.net/docs/package_reference/sentence_transformer/models.html). A checkpoint without
that file is pooled by the mean, as sentence-transformers does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

Step = Callable[[torch.Tensor], torch.Tensor]
"""Vectors [rows, dimensions] to vectors [rows, dimensions]."""

POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Flags of older checkpoints and the modes of newer ones, in the order of concatenation."""


@dataclass(frozen=True)
class SentenceLayout:
    """How token embeddings become one vector a text."""

    encoder: Path
    """Directory of the Hugging Face model and tokenizer."""
    max_tokens: int
    """The checkpoint's own limit; 0 when it names none."""
    pooling: tuple[str, ...]
    steps: tuple[Step, ...]

    def vectors(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token embeddings [rows, tokens, width] and their mask to vectors [rows, dimensions]."""
        vectors = torch.cat([pool(mode, hidden, mask) for mode in self.pooling], dim=-1)
        for step in self.steps:
            vectors = step(vectors)
        return vectors


def read_layout(package: Path, device: torch.device) -> SentenceLayout:
    """Reads the checkpoint's files. Raises ValueError for a step that is not known."""
    encoder, steps = package, list[Step]()
    pooling: tuple[str, ...] = ("mean",)
    for module in _modules(package):
        kind, path = module["type"].rsplit(".", 1)[-1], package / module["path"]
        config = _json(path / "config.json")
        if kind == "Transformer":
            encoder = path
        elif kind == "Pooling":
            pooling = pooling_modes(config)
        elif kind == "Dense":
            steps.append(_dense(path, config, device))
        elif kind == "Normalize":
            steps.append(normalize)
        else:
            raise ValueError(f"modules.json has a step {kind!r} that is not known")
    limit = _json(encoder / "sentence_bert_config.json").get("max_seq_length") or 0
    return SentenceLayout(encoder, int(limit), pooling, tuple(steps))


def pooling_modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modes that a Pooling config asks for. Raises ValueError for one that is not known."""
    named = config.get("pooling_mode")
    if named is None:
        modes = tuple(mode for flag, mode in POOLING_FLAGS.items() if config.get(flag))
    else:
        modes = (named,) if isinstance(named, str) else tuple(named)
    unknown = set(modes) - set(POOLING_FLAGS.values())
    if unknown:
        raise ValueError(f"pooling modes {sorted(unknown)} are not known")
    return modes or ("mean",)


def pool(mode: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Pools [rows, tokens, width] to [rows, width]; padding may be on either side."""
    rows = torch.arange(len(hidden), device=hidden.device)
    if mode == "cls":
        return hidden[rows, mask.int().argmax(dim=1)]
    if mode == "lasttoken":
        return hidden[rows, mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)]
    if mode == "max":
        return hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).max(dim=1).values
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "weightedmean":
        # Positions count from the first token that is not padding.
        weights = weights * mask.cumsum(dim=1).unsqueeze(-1).to(hidden.dtype)
    summed, total = (hidden * weights).sum(dim=1), weights.sum(dim=1)
    return summed / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


def normalize(vectors: torch.Tensor) -> torch.Tensor:
    """Scales each vector to length 1."""
    return torch.nn.functional.normalize(vectors, dim=-1)


def _dense(path: Path, config: Mapping[str, Any], device: torch.device) -> Step:
    weights = {name: value.to(device) for name, value in _tensors(path).items()}
    activations: dict[str, Step] = {
        "Identity": lambda vectors: vectors,
        "Tanh": torch.tanh,
        "ReLU": torch.relu,
        "GELU": torch.nn.functional.gelu,
    }
    name = str(config.get("activation_function", "torch.nn.Tanh")).rsplit(".", 1)[-1]
    if name not in activations:
        raise ValueError(f"the dense step's activation {name!r} is not known")
    activation = activations[name]

    def dense(vectors: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear(
            vectors, weights["linear.weight"], weights.get("linear.bias")
        )
        return activation(linear)

    return dense


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(path / "model.safetensors").items()}


def _modules(package: Path) -> list[dict[str, str]]:
    modules: list[dict[str, str]] = _json(package / "modules.json", [])
    return sorted(modules, key=lambda module: int(module["idx"]))


def _json(path: Path, absent: Any = None) -> Any:
    if not path.is_file():
        return {} if absent is None else absent
    return json.loads(path.read_text())
