"""The engine's counters as Triton metrics, beside Triton's own on its metrics port."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import triton_python_backend_utils as pb_utils

from workers.runtimes.generation.engine import Counts

_COUNTERS = {
    "steps": "Steps of the generation engine",
    "tokens": "Tokens generated",
    "prompt_tokens": "Prompt tokens computed",
}
_GAUGES = {
    "running": "Sequences that are being generated",
    "waiting": "Sequences that wait for their turn",
}


class TritonFigures:
    """Shows counts as Prometheus series penstock_generation_*, labelled with the Triton name."""

    def __init__(self, model: str) -> None:
        self._shown = Counts()
        # A metric is valid only as long as its family is, so these must go last.
        self._families: list[Any] = []
        self._counters = {
            name: self._metric(model, f"{name}_total", text, pb_utils.MetricFamily.COUNTER)
            for name, text in _COUNTERS.items()
        }
        self._gauges = {
            name: self._metric(model, f"{name}_sequences", text, pb_utils.MetricFamily.GAUGE)
            for name, text in _GAUGES.items()
        }

    def publish(self, counts: Counts) -> None:
        """Shows these counts."""
        for name, metric in self._counters.items():
            metric.increment(getattr(counts, name) - getattr(self._shown, name))
        for name, metric in self._gauges.items():
            metric.set(getattr(counts, name))
        self._shown = replace(counts)

    def close(self) -> None:
        """Lets go of the metrics, in the order that Triton asks for."""
        self._counters.clear()
        self._gauges.clear()
        self._families.clear()

    def _metric(self, model: str, name: str, description: str, kind: Any) -> Any:
        family = pb_utils.MetricFamily(
            name=f"penstock_generation_{name}", description=description, kind=kind
        )
        self._families.append(family)
        return family.Metric(labels={"model": model})
