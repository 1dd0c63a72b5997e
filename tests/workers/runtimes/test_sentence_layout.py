"""Pooling and what follows it, against sentence-transformers itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer.modules.pooling import Pooling

from workers.runtimes.sentence_layout import POOLING_FLAGS, pool, pooling_modes, read_layout

CPU = torch.device("cpu")


@pytest.mark.parametrize("mode", POOLING_FLAGS.values())
@pytest.mark.parametrize("padding", ["left", "right"])
def test_pooling_equals_sentence_transformers(mode: str, padding: str) -> None:
    hidden = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    if padding == "left":
        mask = mask.flip(1)
    theirs = Pooling(8, mode)({"token_embeddings": hidden, "attention_mask": mask})
    torch.testing.assert_close(pool(mode, hidden, mask), theirs["sentence_embedding"])


def test_a_checkpoint_without_modules_is_pooled_by_the_mean(tmp_path: Path) -> None:
    layout = read_layout(tmp_path, CPU)
    assert (layout.pooling, layout.steps, layout.encoder) == (("mean",), (), tmp_path)


def test_all_steps_of_a_checkpoint_are_taken_in_order(tmp_path: Path) -> None:
    weight, bias = torch.randn(2, 8), torch.randn(2)
    write_modules(tmp_path, "Transformer", "Pooling", "Dense", "Normalize")
    write(tmp_path / "1_Pooling/config.json", {"pooling_mode": ["cls", "max"]})
    write(
        tmp_path / "2_Dense/config.json",
        {"activation_function": "torch.nn.modules.activation.Tanh"},
    )
    save_file(
        {"linear.weight": weight, "linear.bias": bias}, tmp_path / "2_Dense/model.safetensors"
    )
    write(tmp_path / "0_Transformer/sentence_bert_config.json", {"max_seq_length": 77})
    layout = read_layout(tmp_path, CPU)
    hidden, mask = torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.int64)
    pooled = torch.cat([hidden[:, 0], hidden.max(dim=1).values], dim=1)
    expected = torch.nn.functional.normalize(torch.tanh(pooled @ weight.T + bias), dim=-1)
    torch.testing.assert_close(layout.vectors(hidden, mask), expected)
    assert layout.max_tokens == 77
    assert layout.encoder == tmp_path / "0_Transformer"


def test_flags_of_older_checkpoints_are_read() -> None:
    flags = {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}
    assert pooling_modes(flags) == ("lasttoken",)


def test_steps_and_modes_that_are_not_known_fail_the_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="median"):
        pooling_modes({"pooling_mode": "median"})
    write_modules(tmp_path, "Transformer", "LSTM")
    with pytest.raises(ValueError, match="LSTM"):
        read_layout(tmp_path, CPU)


def write_modules(package: Path, *kinds: str) -> None:
    modules = [
        {"idx": i, "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write(package / "modules.json", modules)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
