"""A tritonserver of its own with one tiny text-generation model, and a client of its streams."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from penstock.service.local.ports import free_port
from penstock.service.packages import Generation, ModelSpec, triton_name, write_package
from tests.workers.runtimes.generating import tiny
from tests.workers.runtimes.test_text_generation_text import byte_tokenizer
from workers.repository import Placement, Repository

CONTEXT = 4096
SEQUENCES = 8
NAME = triton_name("babbler", "1")
SPEC = ModelSpec(
    name="babbler",
    version="1",
    task="text-generation",
    runtime="transformers",
    weights="model.safetensors",
    generation=Generation(max_sequences=SEQUENCES),
)


def babbler(directory: Path) -> Path:
    """A package whose model has random weights and whose tokens are bytes."""
    tiny("llama", context=CONTEXT).save_pretrained(directory)
    backend: Tokenizer = byte_tokenizer()
    # The model's vocabulary is larger than 256 bytes; the rest are letters of their own.
    backend.add_tokens([chr(0x0410 + i) for i in range(44)])
    make_tokenizer: Any = PreTrainedTokenizerFast
    make_tokenizer(tokenizer_object=backend).save_pretrained(directory)
    (directory / "README.md").write_text("# babbler\n\nBabbles.\n")
    write_package(directory, SPEC)
    return directory


class GenerationServer:
    """Start it, use ``stub``, stop it."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"127.0.0.1:{free_port()}"
        self._metrics = f"127.0.0.1:{free_port()}"
        self._log = folder / "triton.log"
        Repository(folder / "repository", Placement()).write(
            NAME, babbler(folder / "babbler"), SPEC
        )
        environment = {
            **os.environ,
            "PENSTOCK_TRITON_LISTEN": self.endpoint,
            "PENSTOCK_TRITON_METRICS_LISTEN": self._metrics,
            "PENSTOCK_TRITON_MODEL_REPOSITORY": str(folder / "repository"),
        }
        with self._log.open("wb") as output:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "workers.triton"],
                env=environment,
                stdout=output,
                stderr=output,
            )
        self._channel = grpc.aio.insecure_channel(
            self.endpoint,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_reconnect_backoff_ms", 200),
            ],
        )
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def load(self) -> None:
        """Waits for the server and loads the model."""
        request = pb.RepositoryModelLoadRequest(model_name=NAME)
        await self.stub.RepositoryModelLoad(request, wait_for_ready=True, timeout=60)

    async def stop(self) -> None:
        """Ends the server."""
        await self._channel.close()
        self._launcher.terminate()
        await asyncio.to_thread(self._launcher.wait)

    def server_processes(self) -> set[int]:
        """Process ids of tritonserver and its models."""
        children = psutil.Process(self._launcher.pid).children(recursive=True)
        return {child.pid for child in children if "triton" in child.name()}

    async def figure(self, name: str) -> float:
        """One of the engine's metrics, as Prometheus would scrape it."""
        url = f"http://{self._metrics}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
        found = re.search(rf'^penstock_generation_{name}{{model="{NAME}"}} (\S+)$', page, re.M)
        assert found, page
        return float(found[1])

    async def idle(self) -> bool:
        """Whether nothing is being generated any more."""
        return await self.figure("running_sequences") == 0

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Waits for a condition to hold; fails the test if it does not in time."""
        give_up = time.monotonic() + seconds
        while not await condition():
            assert time.monotonic() < give_up, self._log.read_text()[-2000:]
            await asyncio.sleep(0.02)

    async def messages(
        self, prompt: str, *, seconds: float = 30, **sampling: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The messages of one answer, on a stream of its own; leaving early cancels it."""
        call = self.stub.ModelStreamInfer(timeout=seconds)
        try:
            # A call that has ended already refuses both; reading then says how it ended.
            with suppress(grpc.aio.InternalError, asyncio.InvalidStateError):
                await call.write(generation_request({"text_input": prompt}, sampling))
                await call.done_writing()
            while (message := await call.read()) is not grpc.aio.EOF:
                if message.error_message:
                    # Leaving a stream that has just ended by itself would leak the model:
                    # docs/proposals/0002.
                    await call.read()
                    raise AnswerFailed(message.error_message)
                yield outputs(message.infer_response)
        finally:
            call.cancel()

    async def text(self, prompt: str, **sampling: Any) -> str:
        """The whole answer."""
        return "".join([part["text_output"] async for part in self.messages(prompt, **sampling)])


class AnswerFailed(Exception):
    """Triton's error message in a stream."""


def generation_request(texts: dict[str, str], sampling: dict[str, Any]) -> pb.ModelInferRequest:
    """A request with BYTES [1] tensors."""
    request = pb.ModelInferRequest(model_name=NAME)
    for name, text in (texts | {"sampling_parameters": json.dumps(sampling)}).items():
        request.inputs.add(name=name, datatype="BYTES", shape=[1])
        content = text.encode()
        request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
    return request


def outputs(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Texts and counts by name."""
    values: dict[str, Any] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        is_text = output.datatype == "BYTES"
        values[output.name] = raw[4:].decode() if is_text else int.from_bytes(raw, "little")
    return values
