"""The text runtimes through a real tritonserver, against the same checkpoints run directly."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from tritonclient.utils import InferenceServerException

from tests.workers.runtimes.served import ServedModels, refusal

WORDS = (
    "the",
    "parcel",
    "with",
    "my",
    "new",
    "kettle",
    "never",
    "came",
    "nobody",
    "answers",
    "why",
)
WILD = (
    "",
    " ",
    "hi",
    "\u0000",
    "👩‍👩‍👧 e\u0301cole 東京タワー naïve ﷽",
    "Where is order #12345?",
    "word " * 400,
)
TEXT_MODELS = ("minilm", "support-intent", "entities")


def mixed_texts(count: int) -> list[str]:
    rng = random.Random(5)
    return [" ".join(rng.choices(WORDS, k=rng.choice((2, 10, 60, 150)))) for _ in range(count)]


def wire(texts: list[str] | tuple[str, ...]) -> list[bytes]:
    return [text.encode() for text in texts]


def found(entities: Any) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = json.loads(entities)
    return spans


async def test_vectors_equal_those_of_sentence_transformers(served: ServedModels) -> None:
    texts = [*mixed_texts(20), *WILD]
    outputs = await served.infer("minilm", wire(texts))
    model = SentenceTransformer(str(served.package("minilm")), device="cpu")
    np.testing.assert_allclose(outputs["embedding"], model.encode(texts), atol=2e-6)


async def test_scores_equal_those_of_transformers(served: ServedModels) -> None:
    texts = mixed_texts(20)
    outputs = await served.infer("support-intent", wire(texts))
    package = served.package("support-intent")
    tokenizer = AutoTokenizer.from_pretrained(package)
    model: Any = AutoModelForSequenceClassification.from_pretrained(package)
    with torch.inference_mode():
        for text, scores in zip(texts, outputs["scores"], strict=True):
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
            np.testing.assert_allclose(scores, logits.softmax(dim=-1).numpy(), atol=2e-6)


async def test_a_ticket_is_understood(served: ServedModels) -> None:
    outputs = await served.infer("support-intent", wire(["I forgot my password, let me log in"]))
    labels = served.spec("support-intent").labels
    assert labels[int(outputs["scores"][0].argmax())] == "account-access"


@pytest.mark.parametrize("text", ["", "  ", "\u0000", "\n"])
@pytest.mark.parametrize("model", TEXT_MODELS)
async def test_a_text_without_a_word_is_answered(
    served: ServedModels, model: str, text: str
) -> None:
    outputs = await served.infer(model, wire([text]))
    assert outputs["tokens"].tolist() == [[2]]
    if model == "entities":
        assert found(outputs["entities"][0, 0]) == []


@pytest.mark.parametrize("model", ["minilm", "support-intent"])
async def test_rows_together_equal_rows_alone(served: ServedModels, model: str) -> None:
    texts = [*mixed_texts(24), *WILD]
    random.Random(6).shuffle(texts)
    together = await served.infer(model, wire(texts))
    for row, text in enumerate(texts):
        alone = await served.infer(model, wire([text]))
        for name, array in alone.items():
            np.testing.assert_allclose(together[name][row], array[0], atol=2e-6)


async def test_requests_that_triton_merges_get_their_own_answers(served: ServedModels) -> None:
    texts = mixed_texts(48)
    together = await served.infer("minilm", wire(texts))
    answers = await served.infer_each("minilm", [wire([text]) for text in texts])
    for row, answer in enumerate(answers):
        assert isinstance(answer, dict)
        np.testing.assert_allclose(together["embedding"][row], answer["embedding"][0], atol=2e-6)


async def test_one_bad_text_among_merged_requests_is_refused_alone(served: ServedModels) -> None:
    requests = [wire([text]) for text in mixed_texts(40)]
    requests[17] = [b"fine", b"\xff\xfe broken"]
    answers = await served.infer_each("support-intent", requests)
    assert await served.largest_merge("support-intent") > 2
    assert refusal(answers.pop(17)) == {
        "reason": "FIELD_INVALID",
        "field": "texts",
        "message": "must be UTF-8 text",
    }
    assert all(isinstance(answer, dict) for answer in answers)


# A length beyond the tensor's end is not among them: Triton 2.51's python backend then fails all
# that it had merged, so it is the gateway that must let none through, and does.
@pytest.mark.parametrize("content", [b"", b"\x02\0\0\0abc", b"abc"])
async def test_bytes_that_are_no_tensor_are_refused_and_companions_are_answered(
    served: ServedModels, content: bytes
) -> None:
    calls = [served.infer("minilm", wire([text])) for text in mixed_texts(10)]
    bad = served.infer_raw("minilm", content)
    error, *answers = await asyncio.gather(bad, *calls, return_exceptions=True)
    assert isinstance(error, InferenceServerException)
    assert "INVALID_ARGUMENT" in str(error.status())
    assert all(isinstance(answer, dict) for answer in answers)


async def test_tokens_are_counted_before_and_after_truncation(served: ServedModels) -> None:
    outputs = await served.infer("minilm", wire(["hello there", "word " * 1000]))
    assert outputs["tokens"].tolist() == [[4], [256]]
    assert outputs["total_tokens"].tolist() == [[4], [1002]]


async def test_entities_equal_those_of_the_transformers_pipeline(served: ServedModels) -> None:
    texts = [
        "Laura Fischer joined Polaris Group in Vienna on 12 May 2021.",
        "Polaris Bank paid $1,250 to Diego Lopez for the iPhone 15 on 2024-03-09!",
        "nothing to see here",
        "😀😀 Emma Jones (étudiante) flew to Zürich with Titan Airlines 🚀 on 3 June.",
        "東京 Kenji Sato 東京 paid €12.50 — naïvely — to Old Mill Ltd",
    ]
    outputs = await served.infer("entities", wire(texts))
    reference: Any = pipeline(
        "token-classification",
        model=str(served.package("entities")),
        aggregation_strategy="first",
        device="cpu",
    )
    for text, entities in zip(texts, outputs["entities"][:, 0], strict=True):
        ours = [(one["start"], one["end"], one["label"]) for one in found(entities)]
        theirs = [(one["start"], one["end"], one["entity_group"]) for one in reference(text)]
        assert ours == theirs


async def test_offsets_are_code_points_of_the_text_as_sent(served: ServedModels) -> None:
    text = "👩‍👩‍👧 e\u0301 東京 Laura Fischer works in Vienna"
    outputs = await served.infer("entities", wire([text]))
    spans = {one["label"]: one for one in found(outputs["entities"][0, 0])}
    person, place = spans["person"], spans["place"]
    assert text[person["start"] : person["end"]].endswith("Laura Fischer")
    assert text[place["start"] : place["end"]] == "Vienna"
    assert 0.0 < place["score"] <= 1.0


async def test_a_text_longer_than_the_model_takes_is_read_to_its_end(served: ServedModels) -> None:
    filler = "The meeting took two hours and the weather was fine. "
    text = filler * 80 + "Laura Fischer joined Polaris Group in Vienna."
    outputs = await served.infer("entities", wire([text]))
    pieces = {text[one["start"] : one["end"]] for one in found(outputs["entities"][0, 0])}
    assert 512 < outputs["tokens"][0, 0] < 2048
    assert {"Laura Fischer", "Vienna"} <= pieces


async def test_a_text_longer_than_the_package_allows_is_cut(served: ServedModels) -> None:
    filler = "The meeting took two hours and the weather was fine. "
    text = filler * 300 + "Laura Fischer joined Polaris Group in Vienna."
    outputs = await served.infer("entities", wire([text]))
    assert outputs["tokens"].tolist() == [[2048]]
    assert all(one["end"] < len(filler) * 200 for one in found(outputs["entities"][0, 0]))
