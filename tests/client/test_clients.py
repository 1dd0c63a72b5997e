"""What both clients do with calls, answers and trouble, through a real server."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

import penstock
from penstock import AsyncClient, Client, Unreachable, errors
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from penstock.api.models.v1 import models_pb2 as models
from penstock.service.rpc import status_of
from tests.client.scripted import Context, Scripted, Served, classified, failing_with, until


def refusing(error: errors.PenstockError) -> Any:
    """Behaves as the gateway does when it refuses."""

    def behave(_: Any, context: Context) -> None:
        status = rpc_status.to_status(status_of(error))
        context.set_trailing_metadata((("x-request-id", "request-7"), *status.trailing_metadata))
        context.abort(status.code, status.details)

    return behave


def test_a_call_carries_the_key_and_a_deadline(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = classified
    client.classify("m", "hello")
    client.classify("m", "hello", timeout=3)
    assert scripted.metadata[0]["authorization"] == "Bearer psk_test"
    assert 25 < scripted.seconds_left[0] < 30.5
    assert 2 < scripted.seconds_left[1] < 3.5


def test_one_text_is_not_a_list_of_letters(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = classified
    results = client.classify("m", "hello", top_k=1, tier="batch")
    assert [result.label for result in results] == ["hello"]
    assert results[0].confidence == 0.75
    assert results.metadata.request_id == "request-1"
    assert scripted.requests[0].tier == 3


def test_a_message_passes_unchanged(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = classified
    request = inference.ClassifyRequest(model="m", texts=["a", "b"], top_k=7)
    assert len(client.classify(request)) == 2
    assert scripted.requests[0] == request


async def test_the_asynchronous_client_does_the_same(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["Classify"] = classified
    answers = await asyncio.gather(*(async_client.classify("m", str(n)) for n in range(20)))
    assert [answer[0].label for answer in answers] == [str(n) for n in range(20)]
    assert scripted.metadata[0]["authorization"] == "Bearer psk_test"


ERRORS = [
    errors.ModelNotFound("m"),
    errors.CredentialsMissing(),
    errors.ScopeMissing("models:read"),
    errors.TaskMismatch("m", "text-generation", "Classify"),
    errors.RateLimited("60 requests a minute", 2.5),
    errors.MessageTooLarge("32 MiB at most"),
    errors.InputTooLong(violations=[errors.FieldViolation("texts[3]", "300 tokens, 256 at most")]),
    errors.InternalError(),
    errors.VersionExists("m", "1"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_an_error_arrives_as_the_class_that_was_raised(
    client: Client, scripted: Scripted, error: errors.PenstockError
) -> None:
    scripted.behaviours["Classify"] = refusing(error)
    with pytest.raises(type(error)) as caught:
        client.classify("m", "hello")
    assert type(caught.value) is type(error)
    assert caught.value.reason == error.reason
    assert caught.value.code is error.code
    assert caught.value.message == error.message
    assert caught.value.violations == error.violations
    assert caught.value.retry_after_seconds == error.retry_after_seconds
    assert caught.value.metadata == error.metadata
    assert caught.value.request_id == "request-7"


async def test_an_error_arrives_as_its_class_asynchronously_too(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["Classify"] = refusing(errors.ModelNotFound("m"))
    with pytest.raises(errors.ModelNotFound, match="no model 'm'") as caught:
        await async_client.classify("m", "hello")
    assert caught.value.request_id == "request-7"


def test_an_unknown_reason_keeps_its_code_and_name(client: Client, scripted: Scripted) -> None:
    class Brewing(errors.PenstockError):
        code = grpc.StatusCode.FAILED_PRECONDITION
        reason = "FROM_A_LATER_RELEASE"

    later = status_of(Brewing("not yet", pot="one"))

    def behave(_: Any, context: Context) -> None:
        info = error_details_pb2.ErrorInfo()
        later.details[0].Unpack(info)
        info.reason = "UNHEARD_OF"
        renamed = status_pb2.Status(code=later.code, message=later.message)
        renamed.details.add().Pack(info)
        context.abort_with_status(rpc_status.to_status(renamed))

    scripted.behaviours["Classify"] = behave
    with pytest.raises(errors.FailedPrecondition) as caught:
        client.classify("m", "hello")
    assert type(caught.value) is errors.FailedPrecondition
    assert caught.value.reason == "UNHEARD_OF"
    assert caught.value.metadata == {"pot": "one"}


def test_a_stub_reaches_everything_with_the_key_and_a_deadline(
    client: Client, scripted: Scripted
) -> None:
    scripted.behaviours["Classify"] = refusing(errors.ModelNotFound("m"))
    with pytest.raises(grpc.RpcError) as caught:
        client.stub(InferenceServiceStub).Classify(inference.ClassifyRequest(model="m"))
    assert scripted.metadata[0]["authorization"] == "Bearer psk_test"
    assert scripted.seconds_left[0] < 30.5
    assert isinstance(penstock.error_of(caught.value), errors.ModelNotFound)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_what_a_server_gives_up_is_tried_again(
    client: Client, scripted: Scripted, code: grpc.StatusCode
) -> None:
    scripted.behaviours["Classify"] = failing_with(code, 2, classified)
    assert client.classify("m", "hello")[0].label == "hello"
    assert len(scripted.requests) == 3


def test_a_server_says_how_long_to_wait_before_the_next_try(
    client: Client, scripted: Scripted
) -> None:
    tries: list[float] = []

    def busy(request: Any, context: Context) -> Any:
        tries.append(time.monotonic())
        if len(tries) == 1:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "400"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return classified(request, context)

    scripted.behaviours["Classify"] = busy
    assert client.classify("m", "hello")[0].label == "hello"
    assert tries[1] - tries[0] >= 0.39


def test_unavailable_for_ever_is_given_up(client: Client, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = failing_with(grpc.StatusCode.UNAVAILABLE, 99, classified)
    with pytest.raises(errors.Unavailable, match="from the proxy"):
        client.classify("m", "hello")
    assert len(scripted.requests) == 4


def test_nothing_else_is_tried_again(client: Client, scripted: Scripted) -> None:
    for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL):
        scripted.requests.clear()
        scripted.behaviours["Classify"] = failing_with(code, 1, classified)
        with pytest.raises(errors.PenstockError):
            client.classify("m", "hello")
        assert len(scripted.requests) == 1


def test_a_deadline_ends_a_slow_call(client: Client, scripted: Scripted) -> None:
    released = threading.Event()

    def slow(request: Any, context: Context) -> Any:
        released.wait(5)
        return classified(request, context)

    scripted.behaviours["Classify"] = slow
    started = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        client.classify("m", "hello", timeout=0.1)
    released.set()
    assert time.monotonic() - started < 2


async def test_cancelling_a_task_reaches_the_server(
    async_client: AsyncClient, scripted: Scripted
) -> None:
    entered, left = threading.Event(), threading.Event()

    def slow(request: Any, context: Context) -> Any:
        context.add_callback(left.set)
        entered.set()
        left.wait(5)
        return classified(request, context)

    scripted.behaviours["Classify"] = slow
    task = asyncio.ensure_future(async_client.classify("m", "hello"))
    assert await asyncio.to_thread(entered.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(left.wait, 2)


def test_nobody_there_is_unreachable() -> None:
    with Client("http://127.0.0.1:1", "psk_test") as client, pytest.raises(Unreachable) as caught:
        client.classify("m", "hello", timeout=5)
    assert isinstance(caught.value, errors.Unavailable)


def test_a_plaintext_server_is_named_as_such(served: Served) -> None:
    with (
        Client(f"https://{served.endpoint}", "psk_test") as client,
        pytest.raises(Unreachable, match="plaintext"),
    ):
        client.classify("m", "hello", timeout=5)


def test_a_list_is_read_to_its_last_page(client: Client, scripted: Scripted) -> None:
    def page(request: models.ListModelsRequest, _: Context) -> models.ListModelsResponse:
        number = int(request.page_token or 0)
        names = [models.Model(name=f"{number}-{n}") for n in range(2)]
        return models.ListModelsResponse(
            models=names, next_page_token=str(number + 1) if number < 2 else ""
        )

    scripted.behaviours["ListModels"] = page
    listed = [model.name for model in client.models.list("text-generation")]
    assert listed == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    assert {request.task for request in scripted.requests} == {"text-generation"}


def test_gateways_that_restart_in_turn_fail_no_call() -> None:
    """Two gateways behind one name drain and end under load, and come back, again and again."""
    gateways = [Served(), Served()]
    for gateway in gateways:
        gateway.scripted.behaviours["Classify"] = classified
    both = "http://ipv4:" + ",".join(gateway.endpoint for gateway in gateways)
    failures: list[errors.PenstockError] = []
    stopping = threading.Event()

    def load() -> None:
        while not stopping.is_set():
            try:
                shared.classify("m", "hello", timeout=10)
            except errors.PenstockError as error:
                failures.append(error)

    def both_answer() -> bool:
        return all(len(gateway.scripted.requests) > 50 for gateway in gateways)

    with Client(both, "psk_test") as shared:
        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert until(both_answer)
        for turn in (0, 1, 0, 1):
            gateways[turn].stop(grace_seconds=5)
            gateways[turn] = Served(gateways[turn].port)
            gateways[turn].scripted.behaviours["Classify"] = classified
            assert until(both_answer)
        stopping.set()
        for thread in threads:
            thread.join()
    for gateway in gateways:
        gateway.stop()
    assert failures == []
