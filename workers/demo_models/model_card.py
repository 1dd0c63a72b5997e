"""The README.md of a demo model package, in the Hugging Face model card format."""

from __future__ import annotations

import yaml

from penstock.service.packages import ModelSpec


def model_card(spec: ModelSpec, text: str) -> str:
    """Front matter, what the model is, the recipe's own words and the measured quality."""
    front = {"license": spec.license.lower(), "pipeline_tag": spec.task}
    if spec.base_model:
        front["base_model"] = spec.base_model
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in spec.quality.items())
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n"
        f"# {spec.name}\n\n{spec.description}\n\n{text.strip()}\n\n"
        f"## Quality on held-out data\n\n| measure | value |\n|---|---|\n{rows}\n"
    )
