"""Text generation through a real tritonserver: many streams, those who leave early, refusals."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.workers.runtimes.generation_server import (
    CONTEXT,
    NAME,
    SEQUENCES,
    AnswerFailed,
    GenerationServer,
    generation_request,
)

PROMPTS = [f"Chapter {number}: {'la ' * number}" for number in range(1, 9)]
SOAK_SECONDS = 8.0


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GenerationServer]:
    """Started once; every test leaves it idle."""
    server = GenerationServer(tmp_path_factory.mktemp("generation"))
    try:
        await server.load()
        yield server
    finally:
        await server.stop()


def sampling(number: int) -> dict[str, Any]:
    """Half are greedy, half roll dice."""
    rules = {"temperature": 1.2, "top_p": 0.95, "seed": number} if number % 2 else {}
    return {"max_tokens": 40 + 5 * number, **rules}


def refusal(error: AnswerFailed) -> dict[str, str]:
    """What the gateway reads."""
    text = str(error)
    content: dict[str, str] = json.loads(text[text.index("PENSTOCK ") + len("PENSTOCK ") :])
    return content


async def test_eight_streams_at_once_give_what_each_gives_alone(server: GenerationServer) -> None:
    alone = [await server.text(prompt, **sampling(k)) for k, prompt in enumerate(PROMPTS)]
    steps = await server.figure("steps_total")
    together = await asyncio.gather(
        *(server.text(prompt, **sampling(k)) for k, prompt in enumerate(PROMPTS))
    )
    assert together == alone
    assert len(set(alone)) == len(PROMPTS)
    # Steps were shared: 460 tokens in little more than the longest answer's 75.
    await server.until(server.idle, 5)
    assert await server.figure("steps_total") - steps < 200


async def test_the_last_message_says_why_it_ended_and_what_it_cost(
    server: GenerationServer,
) -> None:
    messages = [message async for message in server.messages(PROMPTS[0], max_tokens=20)]
    assert [message["finish_reason"] for message in messages] == [
        *[""] * (len(messages) - 1),
        "length",
    ]
    assert messages[-1]["num_input_tokens"] == len(PROMPTS[0])
    assert messages[-1]["num_output_tokens"] == 20
    counts = [message["num_output_tokens"] for message in messages]
    assert counts == sorted(counts)


async def test_the_context_ends_an_answer(server: GenerationServer) -> None:
    prompt = "x" * (CONTEXT - 5)
    messages = [message async for message in server.messages(prompt, max_tokens=100)]
    assert messages[-1]["finish_reason"] == "length"
    assert messages[-1]["num_output_tokens"] == 5


async def test_a_cancelled_stream_is_computed_no_further(server: GenerationServer) -> None:
    before = await server.figure("tokens_total")
    async with aclosing(server.messages(PROMPTS[1], max_tokens=4000)) as messages:
        async for message in messages:
            if message["num_output_tokens"] >= 10:
                break
    await server.until(server.idle, 5)
    assert await server.figure("tokens_total") - before < 1000


async def test_a_deadline_reaches_the_engine(server: GenerationServer) -> None:
    before = await server.figure("tokens_total")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.text(PROMPTS[2], seconds=0.3, max_tokens=4000)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await server.until(server.idle, 5)
    assert await server.figure("tokens_total") - before < 2000


async def test_the_timeout_parameter_ends_an_answer(server: GenerationServer) -> None:
    request = generation_request({"text_input": PROMPTS[2]}, {"max_tokens": 4000})
    request.parameters["timeout"].int64_param = 200_000
    call = server.stub.ModelStreamInfer(timeout=20)
    await call.write(request)
    await call.done_writing()
    errors = [message.error_message async for message in call if message.error_message]
    assert [refusal(AnswerFailed(error))["reason"] for error in errors] == ["DEADLINE_EXCEEDED"]


async def test_a_killed_client_is_noticed(server: GenerationServer) -> None:
    script = f"""
import asyncio, grpc
from tritonclient.grpc import service_pb2 as pb, service_pb2_grpc
async def main():
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.aio.insecure_channel("{server.endpoint}"))
    call = stub.ModelStreamInfer()
    await call.write(pb.ModelInferRequest.FromString(bytes.fromhex("{_long_request().hex()}")))
    await call.read()
    print("reading", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=asyncio.subprocess.PIPE
    )
    assert client.stdout is not None
    assert await client.stdout.readline() == b"reading\n"
    client.send_signal(signal.SIGKILL)
    await client.wait()
    await server.until(server.idle, 5)


def _long_request() -> bytes:
    request = generation_request({"text_input": PROMPTS[3]}, {"max_tokens": 4000})
    content: bytes = request.SerializeToString()
    return content


@pytest.mark.parametrize(
    ("prompt", "given", "reason", "field"),
    [
        ("x" * CONTEXT, {}, "INPUT_TOO_LONG", "prompt"),
        ("", {}, "FIELD_INVALID", "prompt"),
        ("x", {"temperature": 9}, "FIELD_INVALID", "parameters.temperature"),
    ],
)
async def test_what_cannot_be_served_is_refused_in_words_for_the_caller(
    server: GenerationServer, prompt: str, given: dict[str, Any], reason: str, field: str
) -> None:
    with pytest.raises(AnswerFailed) as caught:
        await server.text(prompt, **given)
    told = refusal(caught.value)
    assert (told["reason"], told["field"]) == (reason, field)


async def test_a_chat_without_a_template_is_refused(server: GenerationServer) -> None:
    call = server.stub.ModelStreamInfer(timeout=20)
    chat = json.dumps([{"role": "user", "content": "Hi"}])
    await call.write(generation_request({"messages": chat}, {}))
    await call.done_writing()
    (message,) = [message async for message in call]
    assert refusal(AnswerFailed(message.error_message))["field"] == "messages"


async def test_a_full_line_is_refused_and_the_rest_is_served(server: GenerationServer) -> None:
    answers = await asyncio.gather(
        *(server.text(PROMPTS[k % 8], max_tokens=150) for k in range(10 * SEQUENCES)),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, AnswerFailed)]
    served = [answer for answer in answers if isinstance(answer, str)]
    assert len(refused) + len(served) == len(answers)
    assert len(served) >= 5 * SEQUENCES
    assert {refusal(error)["reason"] for error in refused} == {"OVERLOADED"}


async def test_joins_leaves_and_cancels_leave_the_server_whole(server: GenerationServer) -> None:
    expected = [await server.text(prompt, **sampling(k)) for k, prompt in enumerate(PROMPTS)]
    processes = server.server_processes()
    end = time.monotonic() + SOAK_SECONDS
    finished = 0

    async def caller(seed: int) -> None:
        nonlocal finished
        dice = random.Random(seed)
        while time.monotonic() < end:
            number = dice.randrange(len(PROMPTS))
            fate = dice.random()
            if fate < 0.5:
                assert await server.text(PROMPTS[number], **sampling(number)) == expected[number]
                finished += 1
            elif fate < 0.8:
                await leave_after(server, PROMPTS[number], dice.randrange(1, 20))
            else:
                with pytest.raises(grpc.aio.AioRpcError):
                    await server.text(PROMPTS[number], seconds=dice.random() / 10, max_tokens=4000)

    await asyncio.gather(*(caller(seed) for seed in range(12)))
    assert finished > 20
    await server.until(server.idle, 5)
    assert server.server_processes() == processes
    assert await server.text(PROMPTS[1], **sampling(1)) == expected[1]


async def leave_after(server: GenerationServer, prompt: str, messages: int) -> None:
    """Cancels a stream that would go on for long."""
    async with aclosing(server.messages(prompt, max_tokens=4000)) as stream:
        async for _ in stream:
            messages -= 1
            if messages == 0:
                break


async def test_the_model_unloads_after_all_that(server: GenerationServer) -> None:
    async def unloaded() -> bool:
        index = await server.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        (model,) = [model for model in index.models if model.name == NAME]
        return (model.state, model.reason) == ("UNAVAILABLE", "unloaded")

    await server.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=NAME))
    await server.until(unloaded, 10)
