"""A Hugging Face causal language model that computes the next token of many sequences at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from workers.runtimes.generation.cache import RowCache
from workers.runtimes.launch import Launch
from workers.runtimes.torch_session import WEIGHTS, TorchSession

_log = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}


class ModelUnsuitable(Exception):
    """The checkpoint does not compute the same alone and in company."""


class LanguageModel:
    """The model and its cache. Not thread-safe: one thread owns it."""

    def __init__(self, model: PreTrainedModel, max_rows: int, context_tokens: int) -> None:
        self._model = model
        self._max_rows = max_rows
        self._device = model.device
        self._dtype = model.dtype
        self._windows = _attention_windows(model.config.get_text_config(), context_tokens)
        self.context_tokens = context_tokens
        """Most tokens of one sequence, prompt and answer together."""
        self.reset()

    @classmethod
    def load(cls, launch: Launch) -> LanguageModel:
        """Reads a package's safetensors and config.json, and verifies what it read.

        Raises ModelUnsuitable, and whatever transformers raises for files it cannot read.
        """
        model = _from_files(launch)
        config, limit = model.config.get_text_config(), launch.spec.max_tokens
        context = getattr(config, "max_position_embeddings", None) or limit
        if not context:
            raise ModelUnsuitable("neither config.json nor model.yaml says how long the context is")
        rows = launch.spec.generation.max_sequences
        language_model = cls(model, rows, min(context, limit or context))
        language_model.verify()
        return language_model

    @property
    def generation_config(self) -> Any:
        """The checkpoint's own sampling defaults and end-of-sequence tokens."""
        return self._model.generation_config

    def reset(self) -> None:
        """Forgets every row."""
        self._cache = RowCache(self._max_rows, self.context_tokens)

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Puts the sequence of one row, ``length`` tokens long, into another row."""
        self._cache.move(source, target, length)

    @torch.inference_mode()
    def forward(
        self, first_row: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> Tensor:
        """Feeds each row its tokens from its start position on; returns logits [rows, vocabulary].

        The logits are those after each row's last token, in float32. Shorter rows are padded at the
        end; what padding leaves in the cache is hidden until it is overwritten. Rows of different
        lengths must all start at 0, so that padding stays inside the context.
        """
        longest = max(map(len, tokens))
        padded = [[*row, *[0] * (longest - len(row))] for row in tokens]
        ids = torch.tensor(padded, device=self._device)
        positions = torch.tensor(starts, device=self._device)[:, None]
        if longest > 1:
            positions = positions + torch.arange(longest, device=self._device)
        width = max(starts) + longest
        self._cache.aim(first_row, positions, width)
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask(positions, width),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.tensor([[len(row) - 1] for row in tokens], device=self._device),
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def verify(self) -> None:
        """Computes two sequences together and alone, and raises ModelUnsuitable if they differ.

        A model that ignores explicit positions or masks, or keeps its memory elsewhere than in keys
        and values, would otherwise answer fluently and wrongly.
        """
        vocabulary = self._model.config.get_text_config().vocab_size
        length = min(12, self.context_tokens - 1)
        long, short = ([(7 * i + k) % vocabulary for i in range(length // k)] for k in (1, 2))
        try:
            self.forward(0, [long, short], [0, 0])
            together = self.forward(0, [[5 % vocabulary]] * 2, [len(long), len(short)])
            alone = torch.cat([self._alone([*row, 5 % vocabulary]) for row in (long, short)])
        except (TypeError, ValueError, NotImplementedError, AttributeError, IndexError) as error:
            raise ModelUnsuitable(f"the model does not take a shared cache: {error}") from error
        finally:
            self.reset()
        difference = ((together - alone).norm() / alone.norm()).item()
        if not difference < _TOLERANCE[self._dtype]:
            raise ModelUnsuitable(f"logits differ by {difference:.2g} between alone and together")

    @torch.inference_mode()
    def _alone(self, tokens: list[int]) -> Tensor:
        ids = torch.tensor([tokens], device=self._device)
        output = self._model(ids, attention_mask=torch.ones_like(ids), use_cache=False)
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _mask(self, positions: Tensor, width: int) -> Tensor | dict[str, Tensor]:
        """Additive masks [rows, 1, tokens, width]; one for each kind of layer if there are two."""
        distance = positions[:, None, :, None] - torch.arange(width, device=self._device)
        masks = {kind: self._hidden(distance, window) for kind, window in self._windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _hidden(self, distance: Tensor, window: int | None) -> Tensor:
        hidden = distance < 0
        if window is not None:
            hidden |= distance >= window
        return torch.zeros(hidden.shape, dtype=self._dtype, device=self._device).masked_fill_(
            hidden, float("-inf")
        )


def _from_files(launch: Launch) -> PreTrainedModel:
    session = TorchSession(launch)
    # Rounding the weights once is cheaper than at every step of every sequence.
    dtype = torch.bfloat16 if launch.precision == "bf16" else torch.float32
    options = {**WEIGHTS, "dtype": dtype}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            launch.package, attn_implementation="sdpa", **options
        )
    except ValueError:
        _log.info("this model has no fused attention; using its plain one")
        model = AutoModelForCausalLM.from_pretrained(
            launch.package, attn_implementation="eager", **options
        )
    return cast(PreTrainedModel, session.place(model))


def _attention_windows(config: Any, context_tokens: int) -> dict[str, int | None]:
    """How far back each kind of layer looks; None is all the way."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:
        kinds = {"sliding_attention" if window else "full_attention"}
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise ModelUnsuitable(f"layers of kind {', '.join(sorted(unknown))} are not supported")
    if window is None or window >= context_tokens:
        window = None
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
