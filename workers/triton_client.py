"""What the agent asks of its tritonserver, with the server's many failures told apart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from penstock.service.packages import ModelSpec
from penstock.service.signatures import signature
from workers.probes import probe_inputs

log = logging.getLogger(__name__)

T = TypeVar("T")

CONTROL_TIMEOUT_SECONDS = 3.0
"""For questions that Triton answers without running a model."""

_CHANNEL = [
    # gRPC's own pause between attempts grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
]


class TritonDown(Exception):
    """The server cannot be reached."""


class TritonSlow(Exception):
    """The server did not answer in time."""


class TritonRefused(Exception):
    """The server said no; the text is for our log only."""


class ModelDead(TritonRefused):
    """A process behind the model has died; Triton does not start another by itself."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model has done since it was loaded."""

    answered: int
    """Requests answered, or let go when cancelled."""
    failed: int
    """Requests that ended in an error, the caller's or the model's."""
    answered_seconds: float
    """Time that the former took together, waiting included."""
    failed_seconds: float
    """Time that the latter took together."""

    def some_die(self, before: Figures) -> bool:
        """Whether requests since ``before`` failed as they do at an instance whose process died.

        Triton gives such an instance a second to show life, request by request, and goes on using
        it; meanwhile the others answer as fast as ever.
        """
        failed, answered = self.failed - before.failed, self.answered - before.answered
        if not failed or not answered:
            return False
        failing = (self.failed_seconds - before.failed_seconds) / failed
        answering = (self.answered_seconds - before.answered_seconds) / answered
        return failing > max(0.9, 5 * answering)


class TritonClient:
    """One tritonserver."""

    def __init__(self, endpoint: str) -> None:
        self._client = InferenceServerClient(endpoint, channel_args=_CHANNEL)

    async def close(self) -> None:
        """Ends the connection."""
        await self._client.close()

    async def loaded(self) -> frozenset[str]:
        """Models that are ready to run."""
        index = await self._ask(
            self._client.get_model_repository_index(client_timeout=CONTROL_TIMEOUT_SECONDS)
        )
        return frozenset(model.name for model in index.models if model.state == "READY")

    async def load(self, name: str, timeout_seconds: float) -> None:
        """Loads the repository's entry and waits until it is ready."""
        await self._ask(self._client.load_model(name, client_timeout=timeout_seconds))

    async def unload(self, name: str, longest_seconds: float) -> bool:
        """Lets no new request in, and waits until the last has ended; False if that takes longer.

        It never ends for a model whose process was killed: Triton waits for the dead. The model
        can be loaded again all the same.
        """
        await self._ask(self._client.unload_model(name, client_timeout=CONTROL_TIMEOUT_SECONDS))
        give_up = time.monotonic() + longest_seconds
        while not await self._unloaded(name):
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(0.1)
        return True

    async def probe(self, name: str, spec: ModelSpec, timeout_seconds: float) -> None:
        """Runs the smallest real input through the model."""
        if signature(spec).streams:
            await self._ask(self._stream(name, probe_inputs(spec), timeout_seconds))
            return
        answer = await self._ask(
            self._client.infer(name, probe_inputs(spec), client_timeout=timeout_seconds)
        )
        for output in signature(spec).outputs:
            if answer.get_output(output.name) is None:
                raise TritonRefused(f"{name} did not give {output.name}")

    async def figures(self, name: str) -> Figures:
        """How many requests the model has dealt with."""
        statistics = await self._ask(
            self._client.get_inference_statistics(name, client_timeout=CONTROL_TIMEOUT_SECONDS)
        )
        counted = [model.inference_stats for model in statistics.model_stats]
        return Figures(
            answered=sum(stats.success.count for stats in counted),
            failed=sum(stats.fail.count for stats in counted),
            answered_seconds=sum(stats.success.ns for stats in counted) / 1e9,
            failed_seconds=sum(stats.fail.ns for stats in counted) / 1e9,
        )

    async def _unloaded(self, name: str) -> bool:
        index = await self._ask(
            self._client.get_model_repository_index(client_timeout=CONTROL_TIMEOUT_SECONDS)
        )
        return all(
            model.state in ("", "UNAVAILABLE") for model in index.models if model.name == name
        )

    async def _stream(self, name: str, inputs: list[Any], timeout_seconds: float) -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": name, "inputs": inputs}

        messages = self._client.stream_infer(requests(), stream_timeout=timeout_seconds)
        answered = False
        try:
            async for _, error in messages:
                if error is not None:
                    raise _refusal(str(error))
                answered = True
        finally:
            messages.cancel()
        if not answered:
            raise TritonRefused(f"{name} ended a stream without an answer")

    async def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        """Raises TritonDown, TritonSlow or TritonRefused for whatever goes wrong."""
        try:
            return await question
        except InferenceServerException as error:
            await self._raise(str(error.status()), str(error.message()))
        except grpc.aio.AioRpcError as error:
            await self._raise(str(error.code()), error.details() or "")
        except asyncio.CancelledError:
            # A call that gRPC ends for its own reasons looks like our own cancellation.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise TritonDown("the connection ended") from None
        raise AssertionError("unreachable")

    async def _raise(self, status: str, text: str) -> None:
        if status == "StatusCode.DEADLINE_EXCEEDED":
            raise TritonSlow(text)
        if status in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED") and not await self._live():
            raise TritonDown(text)
        raise _refusal(f"{status.removeprefix('StatusCode.')} {text}")

    async def _live(self) -> bool:
        try:
            return bool(await self._client.is_server_live(client_timeout=CONTROL_TIMEOUT_SECONDS))
        except (InferenceServerException, grpc.aio.AioRpcError):
            return False


def _refusal(text: str) -> TritonRefused:
    return ModelDead(text) if "Stub process" in text else TritonRefused(text)
