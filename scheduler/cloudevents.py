"""Usage events as CloudEvents in JSON batches, in the shape that OpenMeter's meters sum.

Formats: https://github.com/cloudevents/spec, "JSON Event Format" 1.0.2, section 4, batches; the
content type is application/cloudevents-batch+json. ``subject`` is the tenant; ``data`` always has
``input_<unit>``, ``output_<unit>`` and ``<unit>``, their sum, for every unit, 0 where nothing was
used, so that a meter's value is always a number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from penstock.api.types.v1.metadata_pb2 import ApiFamily, ServiceTier, UsageUnit
from penstock.internal.ledger.v1.events_pb2 import CallEvent
from penstock.service.ledger.segments import SPEC_VERSION, Row, code_name, ended_at, word

CONTENT_TYPE = "application/cloudevents-batch+json"
USAGE_TYPE = "dev.penstock.usage"
_UNITS = {number: word(UsageUnit, number) + "s" for number in UsageUnit.values() if number != 0}


def batch(rows: Sequence[Row]) -> bytes:
    """The body of one post: the rows' events; removed rows are left out."""
    return json.dumps([_event(row.source, row.event) for row in rows if row.event]).encode()


def _event(source: str, event: CallEvent) -> dict[str, Any]:
    ended = datetime.fromtimestamp(ended_at(event), UTC)
    return {
        "specversion": SPEC_VERSION,
        "id": event.id,
        "source": f"penstock/{source}",
        "type": USAGE_TYPE,
        "time": ended.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "subject": event.tenant,
        "datacontenttype": "application/json",
        "data": _data(event),
    }


def _data(event: CallEvent) -> dict[str, Any]:
    counted: dict[str, int] = {}
    for unit in _UNITS.values():
        counted |= {f"input_{unit}": 0, f"output_{unit}": 0, unit: 0}
    for usage in event.usage:
        if usage.unit in _UNITS:
            unit = _UNITS[usage.unit]
            counted[f"input_{unit}"] += usage.input_units
            counted[f"output_{unit}"] += usage.output_units
            counted[unit] += usage.input_units + usage.output_units
    return {
        "key_id": event.key_id,
        "end_user": event.subject,
        "method": event.method,
        "family": word(ApiFamily, event.family),
        "model": event.model,
        "model_version": event.model_version,
        "tier": word(ServiceTier, event.tier),
        "region": event.region,
        "code": code_name(event.code),
        "request_id": event.request_id,
        "cost_micros": event.cost_micros,
        **counted,
    }
