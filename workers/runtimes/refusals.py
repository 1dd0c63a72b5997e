"""How a runtime says no: the one text of it that travels on to the caller."""

from __future__ import annotations

import json


class Refusal(Exception):
    """A request that cannot be served, and why.

    ``field`` names what the caller sent, empty when no field is at fault.
    """

    def __init__(self, reason: str, field: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.message = message

    @property
    def text(self) -> str:
        """The text for a TritonError: the gateway passes on only what begins like this."""
        content = {"reason": self.reason, "field": self.field, "message": self.message}
        return "PENSTOCK " + json.dumps(content, ensure_ascii=False)
