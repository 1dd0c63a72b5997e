"""The list of demo models: a new one is one file that keeps this contract, and one line here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from penstock.service.packages import ModelSpec

MODULES = {
    "storyteller": "workers.demo_models.storyteller",
    "scenes": "workers.demo_models.scenes",
    "entities": "workers.demo_models.entities",
    "support-intent": "workers.demo_models.support_intent",
    "digits": "workers.demo_models.digits",
    "minilm": "workers.demo_models.minilm",
    "fraud": "workers.demo_models.fraud",
    "diabetes": "workers.demo_models.diabetes",
}
"""Name of the model to its module, the slowest to build first."""


class Recipe(Protocol):
    """What each module has at its top level."""

    @property
    def CARD(self) -> str:  # noqa: N802
        """Markdown for the model card: where the data came from, how it was trained, its limits."""
        ...

    def build(self, out: Path) -> ModelSpec:
        """Writes weights and Hugging Face files to the empty directory ``out``.

        The spec that it returns carries the quality measured on held-out data. Deterministic, on
        one thread, without the network.
        """
        ...


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises KeyError."""
    return cast(Recipe, importlib.import_module(MODULES[name]))
