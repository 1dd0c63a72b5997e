"""The engine's caller on the other side of Triton: its decoupled response sender.

Asking a sender whether it is cancelled after its FINAL flag crashes the whole tritonserver, so the
flag is kept here and a finished sender is never touched again.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from workers.runtimes.generation.sequence import Part
from workers.runtimes.refusals import Refusal

_log = logging.getLogger(__name__)

# Names in TritonError, which the stub adds to pb_utils only after this module is imported.
_CODES = {
    "INTERNAL": "INTERNAL",
    "OVERLOADED": "UNAVAILABLE",
    "UNAVAILABLE": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "CANCELLED",
}


class TritonCaller:
    """Delivers one answer through one response sender, from one thread at a time."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._finished = False

    def is_cancelled(self) -> bool:
        """Whether the client cancelled, ran out of time or went away."""
        return self._finished or bool(self._sender.is_cancelled())

    def send(self, part: Part) -> None:
        """Sends one message, together with FINAL if it is the last."""
        response = pb_utils.InferenceResponse(
            output_tensors=[
                _text("text_output", part.text),
                _text("finish_reason", part.finish_reason),
                _count("num_input_tokens", part.input_tokens),
                _count("num_output_tokens", part.output_tokens),
            ]
        )
        self._send(response, final=bool(part.finish_reason))

    def fail(self, reason: str, message: str) -> None:
        """Ends the answer with an error of our own making."""
        self._error(Refusal(reason, "", message).text, _CODES[reason])

    def refuse(self, refusal: Refusal) -> None:
        """Ends the answer with the request's own fault."""
        self._error(refusal.text, "INVALID_ARG")

    def close(self) -> None:
        """Ends the answer to a client that no longer listens."""
        self._send(None, final=True)

    def _error(self, text: str, code: str) -> None:
        error = pb_utils.TritonError(text, getattr(pb_utils.TritonError, code))
        self._send(pb_utils.InferenceResponse(error=error), final=True)

    def _send(self, response: Any, *, final: bool) -> None:
        if self._finished:
            return
        self._finished = final
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        try:
            if response is None:
                self._sender.send(flags=flags)
            else:
                self._sender.send(response, flags=flags)
        except Exception:
            # One client's broken path must not take the others' answers with it.
            _log.exception("a message could not be sent")
            self._finished = True


def _text(name: str, value: str) -> Any:
    return pb_utils.Tensor(name, np.array([value.encode()], dtype=np.object_))


def _count(name: str, value: int) -> Any:
    return pb_utils.Tensor(name, np.array([value], dtype=np.uint32))
