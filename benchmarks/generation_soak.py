"""Text generation for ten minutes with callers that join, finish, leave and run out of time.

16 callers at once on the model of benchmarks.generation. A finished text must be the one that the
model gives alone; at the end the engine must be idle, its memory flat and the model still able to
unload, which a leaked stream would prevent. ``make bench-generation-soak``.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks import report
from benchmarks.generation import MODEL, served_model
from gateway.tensors import bytes_tensor
from gateway.upstream import Connection, infer_request
from penstock.errors import DeadlineExceeded

SECONDS = 600.0
CALLERS = 16
SEED = 20
PROMPTS = 8
LONGEST = 256
PATIENCE_SECONDS = 60.0
UNLOAD_SECONDS = 30.0
WAYS = ("finishes", "leaves", "late")
SHARES = (70, 20, 10)


def main() -> None:
    """Soaks, prints a table, writes the figures and prints them last; fails if anything is off."""
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(_soak(Path(folder)))
    report.write("generation_soak", figures)
    report.table("Generation soak", ("", ""), list(figures.items()))
    print(json.dumps(figures))
    if figures["wrong_texts"] or figures["failures"] or not figures["unloads"]:
        raise SystemExit("the soak found something wrong")


async def _soak(folder: Path) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    async with served_model(folder) as endpoint:
        connection = Connection(endpoint)
        alone = [await _tell(connection, prompt, LONGEST) for prompt in range(PROMPTS)]
        end = time.monotonic() + SECONDS
        watching = asyncio.create_task(_watch_memory(end))
        callers = [
            _call(connection, random.Random(SEED + number), alone, end, counts)
            for number in range(CALLERS)
        ]
        await asyncio.gather(*callers)
        memory = await watching
        again = await _tell(connection, 0, LONGEST)
        counts["wrong_texts"] += again != alone[0]
        await connection.close()
        unloads = await _unloads(endpoint)
    return {
        "seconds": SECONDS,
        "callers": CALLERS,
        **{way: counts[way] for way in WAYS},
        "tokens": counts["tokens"],
        "wrong_texts": counts["wrong_texts"],
        "failures": counts["failures"],
        "memory_mib_after_a_tenth": memory[len(memory) // 10],
        "memory_mib_at_the_end": memory[-1],
        "unloads": unloads,
    }


async def _call(
    connection: Connection,
    choose: random.Random,
    alone: list[list[str]],
    end: float,
    counts: Counter[str],
) -> None:
    while time.monotonic() < end:
        prompt, tokens = choose.randrange(PROMPTS), choose.randint(8, LONGEST)
        (way,) = choose.choices(WAYS, SHARES)
        try:
            if way == "finishes":
                text = "".join(await _tell(connection, prompt, tokens)).rstrip("\ufffd")
                counts["wrong_texts"] += not "".join(alone[prompt]).startswith(text)
                counts["tokens"] += tokens
            elif way == "leaves":
                await _tell(connection, prompt, tokens, leave_after=choose.randrange(12))
            else:
                await _tell(connection, prompt, tokens, seconds=choose.uniform(0.001, 0.5))
        except DeadlineExceeded:
            counts["failures"] += way != "late"
        except Exception as error:
            counts["failures"] += 1
            print(f"a caller that {way}: {error!r}", flush=True)
        counts[way] += 1


async def _tell(
    connection: Connection,
    prompt: int,
    tokens: int,
    *,
    seconds: float = PATIENCE_SECONDS,
    leave_after: int | None = None,
) -> list[str]:
    """The pieces of one text; fewer when it is left after so many messages."""
    sampling = json.dumps({"max_tokens": tokens, "temperature": 0})
    tensors = [
        bytes_tensor("text_input", [f"Story {prompt}: {'word ' * prompt}".encode()]),
        bytes_tensor("sampling_parameters", [sampling.encode()]),
    ]
    pieces: list[str] = []
    async with aclosing(connection.stream(infer_request(MODEL, None, tensors), seconds)) as told:
        async for message in told:
            if leave_after is not None and len(pieces) >= leave_after:
                break
            names = [output.name for output in message.outputs]
            contents = dict(zip(names, message.raw_output_contents, strict=True))
            pieces.append(contents["text_output"][4:].decode())
    return pieces


async def _watch_memory(end: float) -> list[int]:
    """MiB of the server and its models, proportional shares, about a hundred times."""
    found = []
    while time.monotonic() < end:
        children = psutil.Process().children(recursive=True)
        found.append(sum(child.memory_full_info().pss for child in children) >> 20)
        await asyncio.sleep(SECONDS / 100)
    return found


async def _unloads(endpoint: str) -> bool:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await stub.RepositoryModelUnload(
            service_pb2.RepositoryModelUnloadRequest(model_name=MODEL), timeout=UNLOAD_SECONDS
        )
        deadline = time.monotonic() + UNLOAD_SECONDS
        while time.monotonic() < deadline:
            index = await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
            if all(model.state != "UNLOADING" for model in index.models):
                return True
            await asyncio.sleep(0.1)
    return False


if __name__ == "__main__":
    main()
