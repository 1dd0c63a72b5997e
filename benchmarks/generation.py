"""Text generation through a real tritonserver: tokens a second and the wait for the first one.

A Llama of 6 layers by 256 with random weights (so that no text ends early), 256 new tokens a
stream, 1, 4 and 16 streams at once, client and server on the same cores; rounds alternate, medians
are quoted. ``make bench-generation``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import grpc
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks import report
from gateway.tensors import bytes_tensor
from gateway.upstream import Connection, infer_request
from penstock.service.local.ports import free_port
from penstock.service.packages import ModelSpec, triton_name, write_package
from workers.repository import Placement, Repository

STREAMS = (1, 4, 16)
ROUNDS = 5
NEW_TOKENS = 256
SECONDS = 120.0
MODEL = triton_name("bench", "1")
VOCABULARY = 2048
TARGET = 5.0
"""Tokens a second at 16 streams over those at 1."""


def main() -> None:
    """Measures, writes the figures, prints them."""
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(_measure(Path(folder)))
    report.write("generation", figures)
    report.table(
        f"Text generation, {NEW_TOKENS} new tokens a stream, medians of {ROUNDS} rounds",
        ("streams", "tokens/s", "first token p50 ms", "p95 ms", "messages/token"),
        [
            (
                streams,
                found["tokens_per_second"],
                found["first_token_p50_ms"],
                found["first_token_p95_ms"],
                found["messages_per_token"],
            )
            for streams, found in figures["streams"].items()
        ],
    )
    print(f"16 streams over 1: {figures['ratio_16_to_1']:.2f} (target {TARGET:g})")
    print(json.dumps(figures))


async def _measure(folder: Path) -> dict[str, Any]:
    rounds: dict[int, list[dict[str, Any]]] = {streams: [] for streams in STREAMS}
    async with served_model(folder) as endpoint:
        connection = Connection(endpoint)
        await _stream(connection, 0)
        for _ in range(ROUNDS):
            for streams in STREAMS:
                rounds[streams].append(await _round(connection, streams))
        await connection.close()
    found = {str(streams): _summary(runs) for streams, runs in rounds.items()}
    rates = {streams: figures["tokens_per_second"] for streams, figures in found.items()}
    return {"streams": found, "ratio_16_to_1": rates["16"] / rates["1"]}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    firsts = [first * 1000 for run in runs for first in run["firsts"]]
    return {
        "tokens_per_second": median(run["rate"] for run in runs),
        "tokens_per_second_rounds": [round(run["rate"], 1) for run in runs],
        "first_token_p50_ms": median(firsts),
        "first_token_p95_ms": quantiles(firsts, n=20, method="inclusive")[-1],
        "messages_per_token": median(run["messages"] for run in runs),
    }


async def _round(connection: Connection, streams: int) -> dict[str, Any]:
    started = time.perf_counter()
    answers = await asyncio.gather(*(_stream(connection, number) for number in range(streams)))
    seconds = time.perf_counter() - started
    tokens = streams * NEW_TOKENS
    return {
        "rate": tokens / seconds,
        "firsts": [first for first, _ in answers],
        "messages": sum(messages for _, messages in answers) / tokens,
    }


async def _stream(connection: Connection, number: int) -> tuple[float, int]:
    """Seconds to the first message, and how many came."""
    prompt = f"Stream {number} begins like this, and then goes on: " + "word " * (number % 5)
    sampling = json.dumps({"max_tokens": NEW_TOKENS, "temperature": 0})
    tensors = [
        bytes_tensor("text_input", [prompt.encode()]),
        bytes_tensor("sampling_parameters", [sampling.encode()]),
    ]
    started = time.perf_counter()
    first, messages, tokens = 0.0, 0, 0
    async for message in connection.stream(infer_request(MODEL, None, tensors), SECONDS):
        first = first or time.perf_counter() - started
        messages += 1
        contents = dict(
            zip([out.name for out in message.outputs], message.raw_output_contents, strict=True)
        )
        tokens = int.from_bytes(contents["num_output_tokens"], "little")
    if tokens != NEW_TOKENS:
        raise RuntimeError(f"a stream ended after {tokens} tokens")
    return first, messages


@asynccontextmanager
async def served_model(folder: Path) -> AsyncIterator[str]:
    """The endpoint of a tritonserver, which this process starts, with the model loaded."""
    _write_package(folder / "package")
    endpoint = f"127.0.0.1:{free_port()}"
    repository = Repository(folder / "repository", Placement())
    repository.write(MODEL, folder / "package", _spec())
    environment = {
        **os.environ,
        "PENSTOCK_TRITON_LISTEN": endpoint,
        "PENSTOCK_TRITON_MODEL_REPOSITORY": str(folder / "repository"),
    }
    with (folder / "triton.log").open("wb") as log:
        launcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.triton"), env=environment, stdout=log, stderr=log
        )
    try:
        async with grpc.aio.insecure_channel(endpoint) as channel:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).RepositoryModelLoad(
                service_pb2.RepositoryModelLoadRequest(model_name=MODEL),
                wait_for_ready=True,
                timeout=SECONDS,
            )
        yield endpoint
    finally:
        launcher.terminate()
        await launcher.wait()


def _spec() -> ModelSpec:
    return ModelSpec(
        name="bench",
        version="1",
        task="text-generation",
        runtime="transformers",
        weights="model.safetensors",
    )


def _write_package(directory: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    vocabulary = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary += [f"w{number}" for number in range(VOCABULARY - len(vocabulary))]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast_tokenizer: Any = PreTrainedTokenizerFast
    fast_tokenizer(tokenizer_object=tokenizer).save_pretrained(directory)
    write_package(directory, _spec())


if __name__ == "__main__":
    main()
