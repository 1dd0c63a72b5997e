"""UsageService: what may still be used."""

from __future__ import annotations

from gateway.adapters.limits import limits_response
from gateway.calls import Call
from gateway.limits.status import LimitStatus
from penstock.api.usage.v1 import usage_pb2 as pb


class UsageService:
    """Reads the limits."""

    def __init__(self, limits: LimitStatus) -> None:
        self._limits = limits

    async def GetLimits(self, _: pb.GetLimitsRequest, call: Call) -> pb.GetLimitsResponse:
        """What the calling key may use and what of it is left now."""
        return limits_response(call.principal, await self._limits.left(call.principal))
