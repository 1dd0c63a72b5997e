"""``python -m workers.demo_models --out DIR [NAME ...]`` builds demo model packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from workers.demo_models.recipes import MODULES


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to build; all if absent.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory that gets one folder a model.")] = Path(
        ".penstock/artifacts"
    ),
    jobs: Annotated[int, typer.Option(help="Models built side by side; 0 is one a core.")] = 0,
) -> None:
    """Builds demo model packages, skipping those that their recipe built before."""
    unknown = sorted(set(names or ()) - MODULES.keys())
    if unknown:
        sys.exit(f"no such demo model: {', '.join(unknown)}; there are {', '.join(MODULES)}")
    # Read when torch and its kind are first imported, here or in a builder's own process.
    os.environ.update(
        OMP_NUM_THREADS="1",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TRANSFORMERS_VERBOSITY="error",
    )
    from workers.demo_models.building import available_jobs, build_all

    for built, fresh in build_all(out, names or list(MODULES), jobs or available_jobs()):
        figures = " ".join(f"{name}={value:.4g}" for name, value in built.quality.items())
        state = f"built in {built.seconds:.1f} s" if fresh else "up to date"
        print(f"{built.name}: {state}; {figures}; {built.package}", flush=True)


if __name__ == "__main__":
    typer.run(main)
