"""Counts every call once: how it ended, how long it took, what it used."""

from __future__ import annotations

import time

import grpc
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
        self._calls = meter.create_counter("penstock.calls", description="Finished calls.")
        self._seconds = meter.create_histogram(
            "penstock.call.duration", unit="s", description="From arrival to the answer."
        )
        self._units = meter.create_counter("penstock.usage", description="Units consumed.")

    def record(self, method: str, code: grpc.StatusCode, started: float, call: Call | None) -> None:
        """Counts a call at its end; ``call`` is None when nobody was identified."""
        self._calls.add(1, {"method": method, "code": code.name})
        self._seconds.record(time.monotonic() - started, {"method": method})
        if call is None or call.usage is None:
            return
        usage = call.usage
        attributes = {"model": call.model, "unit": _UNITS.get(usage.unit, "")}
        if usage.input_units:
            self._units.add(usage.input_units, {**attributes, "direction": "input"})
        if usage.output_units:
            self._units.add(usage.output_units, {**attributes, "direction": "output"})
