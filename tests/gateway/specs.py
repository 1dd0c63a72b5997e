"""Model specifications of every task."""

from __future__ import annotations

from penstock.service.packages import Feature, ModelSpec

FEATURES = (
    Feature(name="amount"),
    Feature(name="country", categories=("de", "fr", "it")),
    Feature(name="age", optional=True),
)


def spec(task: str, **fields: object) -> ModelSpec:
    """A valid specification; ``fields`` win over the defaults."""
    given: dict[str, object] = {
        "name": "model",
        "version": "1",
        "task": task,
        "runtime": "transformers",
        "weights": "model.safetensors",
        "labels": ("a", "b", "c"),
        "max_tokens": 256,
    }
    if task.startswith("tabular-"):
        given["features"] = FEATURES
    if task == "feature-extraction":
        given["dimensions"] = 4
    return ModelSpec.model_validate({**given, **fields})
