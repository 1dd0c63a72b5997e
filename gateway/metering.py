"""Counts every call once: how it ended, how long it took, what it used.

Counters are plain dictionaries that OpenTelemetry reads when it collects: an ``add`` of its own
would cost each call several microseconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import grpc
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.metrics import Meter as OtelMeter

from gateway.calls import Call
from penstock.api.types.v1 import metadata_pb2

_UNITS = {
    value: name.removeprefix("USAGE_UNIT_").lower()
    for name, value in metadata_pb2.UsageUnit.items()
}


class Meter:
    """The gateway's instruments."""

    def __init__(self, meter: OtelMeter) -> None:
        self._calls: Counter[tuple[str, str]] = Counter()
        self._units: Counter[tuple[str, metadata_pb2.UsageUnit.ValueType, str]] = Counter()
        meter.create_observable_counter(
            "penstock.calls", [self._observe_calls], description="Finished calls."
        )
        meter.create_observable_counter(
            "penstock.usage", [self._observe_units], description="Units consumed."
        )
        self._seconds = meter.create_histogram(
            "penstock.call.duration", unit="s", description="From arrival to the answer."
        )

    def record(self, method: str, code: grpc.StatusCode, started: float, call: Call | None) -> None:
        """Counts a call at its end; ``call`` is None when nobody was identified."""
        self._calls[method, code.name] += 1
        self._seconds.record(time.monotonic() - started, {"method": method})
        if call is None or call.usage is None:
            return
        usage = call.usage
        if usage.input_units:
            self._units[call.model, usage.unit, "input"] += usage.input_units
        if usage.output_units:
            self._units[call.model, usage.unit, "output"] += usage.output_units

    def _observe_calls(self, _: CallbackOptions) -> Iterable[Observation]:
        for (method, code), count in list(self._calls.items()):
            yield Observation(count, {"method": method, "code": code})

    def _observe_units(self, _: CallbackOptions) -> Iterable[Observation]:
        for (model, unit, direction), count in list(self._units.items()):
            attributes = {"model": model, "unit": _UNITS.get(unit, ""), "direction": direction}
            yield Observation(count, attributes)
