"""Texts to tokens: decoding, truncating, counting and padding, for every text runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from workers.runtimes.launch import Launch
from workers.runtimes.micro_batches import micro_batches
from workers.runtimes.refusals import Refusal
from workers.runtimes.torch_session import TorchSession

UNLIMITED = 1_000_000
"""Tokenizers without a limit of their own name one larger than this."""

POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
"""Architectures whose positions start after the padding token's, so that fewer are left."""


@dataclass(frozen=True)
class TokenizedText:
    """One text as the model reads it."""

    inputs: Mapping[str, list[int]]
    """Model inputs by name, each one value a token."""
    total: int
    """Tokens of the whole text, before truncation."""

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


class TextReader:
    """A package's tokenizer, held to the longest input its model takes."""

    def __init__(
        self, launch: Launch, config: Any, directory: Path | None = None, max_tokens: int = 0
    ) -> None:
        """``directory`` if the tokenizer is not the package's own root; ``max_tokens`` if a file
        that neither tokenizer nor model reads names a limit.
        """
        # The tokenizers library sizes its own pool of threads by this, at its first use.
        os.environ.setdefault("RAYON_NUM_THREADS", str(launch.threads))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            directory or launch.package, local_files_only=True, trust_remote_code=False
        )
        # It is the end of a text that is left out, as the API promises.
        self.tokenizer.truncation_side = "right"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.max_tokens = longest_input(
            self.tokenizer, config, [max_tokens, launch.spec.max_tokens]
        )
        """Longest input of one forward pass."""

    def read(self, value: object) -> str:
        """The text of one BYTES element. Raises Refusal unless it is UTF-8."""
        if not isinstance(value, bytes):
            raise Refusal("FIELD_INVALID", "texts", "must be text")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Refusal("FIELD_INVALID", "texts", "must be UTF-8 text") from error

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokens of each text, its end cut off beyond ``max_tokens``.

        Raises Refusal for a text in which the tokenizer finds nothing to read.
        """
        encoded = self.tokenizer(list(texts), verbose=False)
        tokenized = [
            TokenizedText({name: encoded[name][row] for name in encoded}, len(ids))
            for row, ids in enumerate(encoded["input_ids"])
        ]
        if not all(map(len, tokenized)):
            raise Refusal("FIELD_INVALID", "texts", "must hold something to read")
        return [
            tokens if len(tokens) <= self.max_tokens else self._cut(text, tokens.total)
            for text, tokens in zip(texts, tokenized, strict=True)
        ]

    def batches(
        self, rows: Sequence[Mapping[str, list[int]]], session: TorchSession
    ) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Micro-batches of similar lengths: row indexes and padded tensors [rows, tokens]."""
        lengths = [len(row["input_ids"]) for row in rows]
        for group in micro_batches(lengths, session.token_budget, session.pass_tokens):
            yield group, self._padded([rows[index] for index in group])

    def _cut(self, text: str, total: int) -> TokenizedText:
        # The tokenizer itself truncates: it knows which special tokens must stay, and where.
        cut = self.tokenizer(text, truncation=True, max_length=self.max_tokens)
        return TokenizedText({name: cut[name] for name in cut}, total)

    def _padded(self, rows: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
        fill = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        # On the right, whatever the tokenizer prefers: positions then count from the first token,
        # so that each text gets what it gets alone, also from a decoder.
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row[name]) for row in rows],
                batch_first=True,
                padding_value=fill.get(name, 0),
            )
            for name in rows[0]
        }


def longest_input(tokenizer: Any, config: Any, limits: Sequence[int]) -> int:
    """The longest input in tokens by the strictest that names a limit; 0 among ``limits`` is none.

    Raises ValueError when none does.
    """
    positions = getattr(config, "max_position_embeddings", 0) or 0
    if positions and config.model_type in POSITIONS_AFTER_PADDING:
        positions -= config.pad_token_id + 1
    known = [limit for limit in (*limits, positions) if limit]
    if tokenizer.model_max_length < UNLIMITED:
        known.append(tokenizer.model_max_length)
    if not known:
        raise ValueError("no file of the package says how long an input may be: set max_tokens")
    return min(known)
