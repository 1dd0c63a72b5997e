"""How torch runs inside a runtime: device, threads, precision, no gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from workers.runtimes.launch import Launch

CPU_TOKEN_BUDGET = 1024
GPU_TOKEN_BUDGET = 32_768
"""Padded tokens of one micro-batch: small ones waste least on a CPU, large ones fill a GPU."""
CPU_PASS_TOKENS = 24
GPU_PASS_TOKENS = 2048
"""What a forward pass costs beside its tokens, in tokens. Measured for MiniLM on one core, 7 ms at
0.27 ms a token; for GPUs an estimate."""
CPU_IMAGES = 8
GPU_IMAGES = 64
"""Images of one micro-batch."""

WEIGHTS: Mapping[str, Any] = {
    "local_files_only": True,
    "use_safetensors": True,
    "trust_remote_code": False,
    "dtype": torch.float32,
}
"""How every checkpoint is loaded: from its own directory, no pickles, no code of its own."""


class TorchSession:
    """Places one model and runs it."""

    def __init__(self, launch: Launch) -> None:
        quiet: Any = transformers_logging.disable_progress_bar
        quiet()
        torch.set_num_threads(launch.threads)
        self.device = torch.device(launch.device)
        self.on_gpu = self.device.type == "cuda"
        self._bf16 = launch.precision == "bf16"
        self.token_budget = GPU_TOKEN_BUDGET if self.on_gpu else CPU_TOKEN_BUDGET
        self.pass_tokens = GPU_PASS_TOKENS if self.on_gpu else CPU_PASS_TOKENS
        self.images = GPU_IMAGES if self.on_gpu else CPU_IMAGES

    def place(self, model: Any) -> Any:
        """The model on its device, ready for inference."""
        if getattr(model.config, "use_cache", False):
            # Decoders would keep keys and values for a next token that never comes.
            model.config.use_cache = False
        return model.to(self.device).eval().requires_grad_(False)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Inside, nothing is recorded for gradients and products run in the asked precision."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16),
        ):
            yield

    def move(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Model inputs on the model's device."""
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}
