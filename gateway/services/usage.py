"""UsageService: what was used, from the ledger's roll-ups, and what may still be used."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping

from redis.exceptions import RedisError

from gateway.adapters.limits import limits_response
from gateway.authorisation import holds
from gateway.calls import Call
from gateway.ledger.rollups import Sums
from gateway.ledger.usage import Group, UsageReader
from gateway.limits.status import LimitStatus
from gateway.validation.usage import DEFAULT_PAGE_SIZE, group_after, group_token, read_query
from penstock.api.usage.v1 import usage_pb2 as pb
from penstock.errors import DependencyUnavailable

_FIELDS: Mapping[int, str] = {
    pb.USAGE_DIMENSION_TENANT: "tenant_id",
    pb.USAGE_DIMENSION_KEY: "key_id",
    pb.USAGE_DIMENSION_MODEL: "model",
    pb.USAGE_DIMENSION_FAMILY: "family",
    pb.USAGE_DIMENSION_TIER: "tier",
}


class UsageService:
    """Reads the usage ledger and the limits."""

    def __init__(self, reader: UsageReader, currency: str, limits: LimitStatus) -> None:
        self._reader = reader
        self._currency = currency
        self._limits = limits

    async def GetLimits(self, _: pb.GetLimitsRequest, call: Call) -> pb.GetLimitsResponse:
        """What the calling key may use and what of it is left now."""
        return limits_response(call.principal, await self._limits.left(call.principal))

    async def QueryUsage(self, request: pb.QueryUsageRequest, call: Call) -> pb.QueryUsageResponse:
        """Sums over whole UTC days."""
        asked = frozenset(request.filter.tenant_ids)
        own = frozenset({call.principal.tenant})
        tenants = asked if _sees_every_tenant(call) else (asked & own if asked else own)
        query = read_query(request, tenants)
        response = pb.QueryUsageResponse()
        try:
            nothing = not tenants and not _sees_every_tenant(call)
            found = {} if nothing else await self._reader.groups(query)
            sealed_until = await self._reader.sealed_until()
        except RedisError as error:
            raise DependencyUnavailable(
                "usage cannot be read right now", retry_after_seconds=1.0
            ) from error
        after = group_after(request)
        groups = sorted(group for group in found if after is None or group > after)
        page = groups[: request.page_size or DEFAULT_PAGE_SIZE]
        if len(page) < len(groups):
            response.next_page_token = group_token(page[-1])
        response.rows.extend(self._row(query.group_by, group, found[group]) for group in page)
        if sealed_until is not None:
            response.sealed_until.FromNanoseconds(int(sealed_until * 1e9))
        return response

    def _row(self, group_by: tuple[int, ...], group: Group, sums: Sums) -> pb.UsageRow:
        row = pb.UsageRow(
            unit=group[-1],  # type: ignore[arg-type]
            calls=sums.calls,
            input_units=sums.input_units,
            output_units=sums.output_units,
            cost_micros=sums.cost_micros,
            currency=self._currency,
        )
        for dimension, value in zip(group_by, group, strict=False):
            if dimension == pb.USAGE_DIMENSION_DAY:
                row.day.seconds = calendar.timegm(time.strptime(str(value), "%Y-%m-%d"))
            else:
                setattr(row, _FIELDS[dimension], value)
        return row


def _sees_every_tenant(call: Call) -> bool:
    return holds(call.principal.scopes, "admin:read")
