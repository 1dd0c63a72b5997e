"""Draws the gateway benchmark: rates side by side, and where the CPU time of a request goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

COLOURS = {"echo": "#9aa5b1", "triton": "#7aa95c", "penstock": "#2a6fb0", "gateway": "#2a6fb0"}
SERVERS = ("echo", "triton", "penstock")


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Writes an SVG with three panels: rate, CPU a request, embedding throughput."""
    tiny, embedding = figures["tiny_tensors"], figures["embedding"]
    chart, (rates, costs, texts) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    levels = list(tiny)
    for offset, server in enumerate(SERVERS):
        places = [index + (offset - 1) * 0.27 for index in range(len(levels))]
        values = [tiny[level][server]["requests_per_second"] for level in levels]
        rates.bar(places, values, 0.25, label=server, color=COLOURS[server])
        bottom = [0.0] * len(levels)
        for part in tiny[levels[0]][server]["cpu_us_per_request"]:
            spent = [tiny[level][server]["cpu_us_per_request"][part] for level in levels]
            colour = COLOURS.get(part, COLOURS["echo"])
            costs.bar(places, spent, 0.25, bottom=bottom, color=colour)
            bottom = [below + more for below, more in zip(bottom, spent, strict=True)]
    for axes in (rates, costs):
        axes.set_xticks(range(len(levels)), [f"{level} callers" for level in levels])
    rates.set_title("Tiny tensors: requests/s")
    rates.legend(frameon=False)
    costs.set_title("CPU µs a request (green: Triton's share)")
    names = ("straight", "penstock")
    texts.bar(
        names,
        [embedding[name]["texts_per_second"] for name in names],
        color=[COLOURS["triton"], COLOURS["penstock"]],
    )
    texts.set_title(f"MiniLM, {embedding['callers']} callers: texts/s")
    for axes in (rates, costs, texts):
        axes.spines[["top", "right"]].set_visible(False)
    chart.savefig(path, metadata={"Date": None})
    plt.close(chart)
