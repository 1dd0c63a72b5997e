"""storyteller: continues text and answers chats in the manner of Python's documentation."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from penstock.service.packages import Generation, ModelSpec
from workers.demo_models.python_documents import Document, python_documents

SEED = 20260109
VOCABULARY = 2048
CONTEXT = 512
WINDOW = 256
BATCH = 8
STEPS = 180
LEARNING_RATE = 0.012
WARM_UP = 20
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
QUESTIONS = ("What is {}?", "Tell me about {}.", "Explain {}.", "{}")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}"
    "{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CARD = f"""
## Data

The documentation that Python brings along: docstrings of the standard library (PSF-2.0, read from
its sources) and the language reference behind `help()`. One document in 20 is held out. Half of
the documents are laid out as a chat in which the user asks for the thing that is documented.

## Training

A Llama of 4 layers by 192 with random weights, and its own byte-level BPE tokenizer of
{VOCABULARY} tokens: {STEPS} steps of {BATCH} windows of {WINDOW} tokens, with Muon for the matrices
and AdamW for the rest, in a minute or two on one core, seed {SEED}. The data is that of the Python
it was built with, so another Python makes a slightly different model.

## Limits

It writes English that looks like documentation and means nothing. It knows no facts, follows no
instructions, and invents functions that do not exist. It shows how text generation is served.
`perplexity` is per token, `bits_per_byte` is comparable between tokenizers.
"""


def build(out: Path) -> ModelSpec:
    """Trains the tokenizer and the model on the documents, measures on those held out."""
    torch.manual_seed(SEED)
    documents = python_documents()
    known = [document for document in documents if not document.held_out]
    random.Random(SEED).shuffle(known)
    tokenizer = train_tokenizer([document.text for document in known])
    end = tokenizer.encode(END).ids[0]
    model: Any = LlamaForCausalLM(config(end))
    train(model, windows(tokenizer, [laid_out(document) for document in known]))
    unseen = [document.text + END for document in documents if document.held_out]
    quality = measure(model, tokenizer, unseen)
    sampling: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
    model.generation_config.update(**sampling, eos_token_id=end)
    model.save_pretrained(out)
    fast_tokenizer: Any = PreTrainedTokenizerFast
    fast_tokenizer(
        tokenizer_object=tokenizer,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    ).save_pretrained(out, save_jinja_files=False)
    return ModelSpec(
        name="storyteller",
        version="1",
        task="text-generation",
        runtime="transformers",
        weights="model.safetensors",
        description="Writes what looks like Python documentation. A demonstration.",
        license="PSF-2.0",
        max_tokens=CONTEXT,
        generation=Generation(max_sequences=16, default_max_tokens=128),
        quality=quality,
    )


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A byte-level BPE: no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def config(end: int) -> LlamaConfig:
    """The shape of the model."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=None,
    )


def laid_out(document: Document) -> str:
    """The document by itself, or as the answer to a question: half and half."""
    dice = zlib.crc32(document.name.encode())
    if dice % 2:
        return document.text + END
    question = QUESTIONS[dice // 2 % len(QUESTIONS)].format(document.name)
    return f"{USER}{question}{END}{ASSISTANT}{document.text}{END}"


def windows(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """All texts one after the other, cut into rows of WINDOW tokens."""
    tokens = [token for text in tokenizer.encode_batch(texts) for token in text.ids]
    rows = len(tokens) // WINDOW
    return torch.tensor(tokens[: rows * WINDOW]).view(rows, WINDOW)


def train(model: Any, rows: Tensor) -> None:
    """STEPS steps. In the same time, AdamW alone came to twice the perplexity (162 against 77)."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(
            matrices, lr=LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, speed) for one in optimizers]
    fast = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    for batch in batches(rows):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
            logits = model(batch).logits
        loss: Any = loss_of(logits, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for schedule in schedules:
            schedule.step()
    model.eval()


def speed(step: int) -> float:
    """Share of the learning rate: a short rise, then down to nothing over the last 60%."""
    return min(1.0, (step + 1) / WARM_UP, (1 - step / STEPS) / 0.6)


def batches(rows: Tensor) -> Iterator[Tensor]:
    """BATCH rows a step, all rows in a new order each time round."""
    order: list[int] = []
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = torch.randperm(len(rows)).tolist()
        yield rows[[order.pop() for _ in range(BATCH)]]


def loss_of(logits: Tensor, batch: Tensor) -> Tensor:
    """Mean cross entropy of each next token."""
    predicted = logits[:, :-1].float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(predicted, batch[:, 1:].flatten())


@torch.inference_mode()
def measure(model: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Perplexity and bits per byte over texts that training did not see."""
    rows = windows(tokenizer, texts)
    whole = rows[: len(rows) // BATCH * BATCH].view(-1, BATCH, WINDOW)
    nats = fmean(loss_of(model(batch).logits, batch).item() for batch in whole)
    tokens = sum(len(text.ids) for text in tokenizer.encode_batch(list(texts)))
    size = sum(len(text.encode()) for text in texts)
    return {
        "perplexity": round(math.exp(nats), 2),
        "bits_per_byte": round(nats / math.log(2) * tokens / size, 3),
    }
