"""Architectures other than the demo models': tiny random checkpoints, run by the runtimes directly.

They differ where it matters: padding on the left or none at all, several labels at once, images
of many sizes without a mask, tokenizers that split at spaces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForTokenClassification,
    RobertaModel,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

from penstock.service.packages import ModelSpec
from tests.workers.runtimes.test_images import encoded
from workers.runtimes.feature_extraction import TextEmbedder
from workers.runtimes.launch import Launch
from workers.runtimes.object_detection import ObjectDetector
from workers.runtimes.refusals import Refusal
from workers.runtimes.text_classification import TextClassifier
from workers.runtimes.token_classification import TokenClassifier

LABELS = ("a", "b", "c")
WORDS = ["<pad>", "<unk>", "<end>", *(f"w{number}" for number in range(30))]
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = ["w1", "w2 w3 w4 w5 w6 w7 w8", "w9 w9", "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13"]


def tokenizer(directory: Path, **options: Any) -> None:
    """A tokenizer of whole words, without any token of its own before or after a text."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    from_rust: Any = PreTrainedTokenizerFast
    fast = from_rust(tokenizer_object=words, eos_token="<end>", **options)
    fast.save_pretrained(directory)


def launch(directory: Path, task: Any, model: Any, **options: Any) -> Launch:
    """Saves a model beside its tokenizer or processor and describes the package."""
    model.eval().save_pretrained(directory)
    weights = "model.safetensors"
    spec = ModelSpec(
        name="tiny", version="1", task=task, runtime="transformers", weights=weights, **options
    )
    return Launch(directory, spec)


def alone_and_together(model: Any, values: Sequence[Any], name: str) -> tuple[Any, Any]:
    rows = [model.read(value) for value in values]
    together = model.run(rows)[name]
    return np.concatenate([model.run([row])[name] for row in rows]), together


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_without_a_padding_token_scores_merged_texts_like_single_ones(
    tmp_path: Path, side: str
) -> None:
    torch.manual_seed(1)
    tokenizer(tmp_path, padding_side=side, model_max_length=64)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        id2label=dict(enumerate(LABELS)),
    )
    model = GPT2ForSequenceClassification(config)
    package = launch(tmp_path, "text-classification", model, labels=LABELS)
    alone, together = alone_and_together(
        TextClassifier(package), [text.encode() for text in TEXTS], "scores"
    )
    np.testing.assert_allclose(alone, together, atol=1e-6)
    ids = torch.tensor([[WORDS.index(word) for word in TEXTS[1].split()]])
    with torch.inference_mode():
        expected = model(ids).logits.softmax(dim=-1)
    np.testing.assert_allclose(alone[1:2], expected.numpy(), atol=1e-6)


def test_labels_that_do_not_exclude_each_other_are_scored_one_by_one(tmp_path: Path) -> None:
    torch.manual_seed(2)
    tokenizer(tmp_path, pad_token="<pad>", model_max_length=64)
    config = BertConfig(
        **SMALL,
        intermediate_size=32,
        vocab_size=len(WORDS),
        id2label=dict(enumerate(LABELS)),
        problem_type="multi_label_classification",
    )
    model = BertForSequenceClassification(config)
    package = launch(tmp_path, "text-classification", model, labels=LABELS)
    scores = TextClassifier(package).run(["w1 w2"])["scores"]
    with torch.inference_mode():
        expected = model(torch.tensor([[4, 5]])).logits.sigmoid()
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-6)


def test_a_package_whose_labels_do_not_fit_its_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    tokenizer(tmp_path, pad_token="<pad>", model_max_length=64)
    config = BertConfig(**SMALL, intermediate_size=32, vocab_size=len(WORDS))
    model = BertForSequenceClassification(config)
    package = launch(tmp_path, "text-classification", model, labels=LABELS)
    with pytest.raises(ValueError, match="3 labels, but the model scores 2"):
        TextClassifier(package)


def roberta() -> RobertaConfig:
    """Reads 30 tokens: positions 0 and 1 are the padding token's."""
    return RobertaConfig(
        **SMALL,
        intermediate_size=32,
        vocab_size=len(WORDS),
        max_position_embeddings=31,
        pad_token_id=0,
        id2label={0: "O", 1: "B-a", 2: "I-a", 3: "B-b", 4: "I-b"},
    )


def test_positions_after_the_padding_token_shorten_what_is_read(tmp_path: Path) -> None:
    tokenizer(tmp_path, pad_token="<pad>")
    package = launch(tmp_path, "feature-extraction", RobertaModel(roberta()), dimensions=16)
    outputs = TextEmbedder(package).run(["w1 " * 50])
    assert (outputs["tokens"].item(), outputs["total_tokens"].item()) == (30, 50)


def test_a_text_in_which_the_tokenizer_finds_nothing_is_refused(tmp_path: Path) -> None:
    tokenizer(tmp_path, pad_token="<pad>", model_max_length=30)
    package = launch(tmp_path, "feature-extraction", RobertaModel(roberta()), dimensions=16)
    with pytest.raises(Refusal, match="must hold something to read"):
        TextEmbedder(package).run(["w1", " "])


def test_bfloat16_points_the_same_way_as_float32(tmp_path: Path) -> None:
    tokenizer(tmp_path, pad_token="<pad>", model_max_length=30)
    exact = launch(tmp_path, "feature-extraction", RobertaModel(roberta()), dimensions=16)
    rough = Launch(exact.package, exact.spec, precision="bf16")
    one, other = (TextEmbedder(each).run(TEXTS)["embedding"] for each in (exact, rough))
    assert other.dtype == np.float32
    assert not np.array_equal(one, other)
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.min() > 0.999


def test_windows_of_a_long_text_label_each_token_as_often_as_needed(tmp_path: Path) -> None:
    torch.manual_seed(3)
    tokenizer(tmp_path, pad_token="<pad>", model_max_length=30)
    model = RobertaForTokenClassification(roberta())
    package = launch(tmp_path, "token-classification", model, labels=("a", "b"), max_tokens=500)
    classifier = TokenClassifier(package)
    texts = [" ".join(WORDS[3 + at % 30] for at in range(count)) for count in (400, 7, 29, 31, 600)]
    alone, together = alone_and_together(classifier, [text.encode() for text in texts], "entities")
    assert alone.tolist() == together.tolist()
    assert classifier.run(texts)["tokens"][:, 0].tolist() == [400, 7, 29, 31, 500]
    for text, entities in zip(texts, together[:, 0], strict=True):
        spans = json.loads(entities)
        assert all(a["end"] <= b["start"] for a, b in pairwise(spans))
        assert all(text[s["start"] : s["end"]].strip() for s in spans)


def test_images_of_many_sizes_do_not_change_each_others_boxes(tmp_path: Path) -> None:
    torch.manual_seed(4)
    config = YolosConfig(
        **SMALL,
        intermediate_size=32,
        image_size=[64, 96],
        patch_size=8,
        num_detection_tokens=5,
        id2label=dict(enumerate(LABELS)),
    )
    YolosImageProcessorPil(size={"shortest_edge": 48, "longest_edge": 96}).save_pretrained(tmp_path)
    package = launch(tmp_path, "object-detection", YolosForObjectDetection(config), labels=LABELS)
    sizes = [(60, 40), (200, 50), (40, 60), (60, 40), (80, 80)]
    noise = np.random.default_rng(5)
    images = [
        encoded(Image.fromarray(noise.integers(0, 255, (height, width, 3), np.uint8)))
        for width, height in sizes
    ]
    alone, together = alone_and_together(ObjectDetector(package), images, "detections")
    for one, other, size in zip(alone[:, 0], together[:, 0], sizes, strict=True):
        single, merged = json.loads(one), json.loads(other)
        assert (merged["width"], merged["height"]) == size
        assert [box["label"] for box in single["detections"]] == [
            box["label"] for box in merged["detections"]
        ]
        np.testing.assert_allclose(
            [box["box"] for box in single["detections"]],
            [box["box"] for box in merged["detections"]],
            atol=1e-3,
        )
