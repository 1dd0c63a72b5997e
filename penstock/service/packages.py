"""A model package: a directory of weights and Hugging Face files, described and sealed.

``model.yaml`` says what the model is, ``MANIFEST.sha256`` (the format of ``sha256sum``) lists every
other file, and the package's digest is the SHA-256 of that manifest. A package holds data only:
pickles, archives and code are refused by name and by content, because loading them runs them.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.errors import PackageInvalid
from penstock.service.package_content import refuse_content

MODEL_FILE = "model.yaml"
MANIFEST_FILE = "MANIFEST.sha256"
MAX_TEXT_BYTES = 4 << 20
"""The largest model.yaml or manifest that is read."""

Task = Literal[
    "text-classification",
    "token-classification",
    "tabular-classification",
    "tabular-regression",
    "image-classification",
    "object-detection",
    "feature-extraction",
    "text-generation",
]
Runtime = Literal["transformers", "onnx", "vllm", "triton"]

_LABELLED = frozenset(
    {
        "text-classification",
        "token-classification",
        "tabular-classification",
        "image-classification",
        "object-detection",
    }
)
_WEIGHTS = {
    "transformers": (".safetensors", ".safetensors.index.json"),
    "vllm": (".safetensors", ".safetensors.index.json"),
    "onnx": (".onnx",),
}
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_PART = re.compile(r"[^\x00-\x1f\x7f/\\]+")


class Feature(BaseModel):
    """One column of a tabular model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)]
    categories: tuple[str, ...] = ()
    """Allowed texts of a categorical column; the model is fed their index. Empty: a number."""
    optional: bool = False
    """Whether a row may leave it out (the model is fed NaN)."""


class Generation(BaseModel):
    """How a text-generation model runs its sequences."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_sequences: Annotated[int, Field(ge=1, le=1024)] = 16
    """Sequences generated side by side; more wait."""
    default_max_tokens: Annotated[int, Field(ge=1, le=1 << 20)] = 128
    """New tokens when the request names no limit."""


class ModelSpec(BaseModel):
    """What model.yaml says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._:-]{0,127}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
    task: Task
    runtime: Runtime
    weights: str = ""
    """File with the weights, relative to the package; empty only for runtime ``triton``."""
    description: str = ""
    license: str = ""
    base_model: str = ""
    training_job: str = ""
    labels: tuple[str, ...] = ()
    """Classes in the order of the scores."""
    features: tuple[Feature, ...] = ()
    """Tabular columns, in order."""
    dimensions: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    """Length of an embedding."""
    max_tokens: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    """Longest input that a text model reads, in tokens; 0 leaves it to the model's own files."""
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rows that may be merged into one execution."""
    instances: Annotated[int, Field(ge=1, le=64)] = 1
    """Copies of the model in one Triton."""
    generation: Generation = Generation()
    quality: dict[str, float] = Field(default_factory=dict)
    """Figures measured when the package was built."""

    @model_validator(mode="after")
    def _fits_its_task(self) -> ModelSpec:
        if self.task in _LABELLED and not self.labels:
            raise ValueError(f"{self.task} needs labels")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeat")
        if self.task.startswith("tabular-") and not self.features:
            raise ValueError(f"{self.task} needs features")
        if len({feature.name for feature in self.features}) != len(self.features):
            raise ValueError("feature names repeat")
        if self.task == "feature-extraction" and not self.dimensions:
            raise ValueError("feature-extraction needs dimensions")
        if self.runtime == "vllm" and self.task != "text-generation":
            raise ValueError("runtime vllm does text-generation only")
        suffixes = _WEIGHTS.get(self.runtime, ())
        if suffixes and not self.weights.endswith(suffixes):
            raise ValueError(f"runtime {self.runtime} needs weights ending in {suffixes[0]}")
        return self


def read_spec(directory: Path) -> ModelSpec:
    """Reads model.yaml, trusting nothing in it. Raises PackageInvalid."""
    text = _read_text(directory, MODEL_FILE)
    try:
        return ModelSpec.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise PackageInvalid(f"{MODEL_FILE} is not YAML") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{MODEL_FILE}: {where + ': ' if where else ''}{first['msg']}"
        raise PackageInvalid(message) from error


def write_package(directory: Path, spec: ModelSpec) -> str:
    """Writes model.yaml and the manifest beside the files already there; returns the digest.

    Raises PackageInvalid when the directory holds something that a package may not.
    """
    described = spec.model_dump(mode="json", exclude_defaults=True)
    _replace(directory / MODEL_FILE, yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
    names = sorted(name for name in _files(directory) if name != MANIFEST_FILE)
    lines = [f"{_sha256(directory / name)}  {name}\n" for name in names]
    _replace(directory / MANIFEST_FILE, "".join(lines))
    digest = package_digest(directory)
    verify_package(directory, digest)
    return digest


def package_digest(directory: Path) -> str:
    """``sha256:`` and the SHA-256 of the manifest, which covers every other byte."""
    manifest = _read_text(directory, MANIFEST_FILE)
    return "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()


def verify_package(directory: Path, digest: str | None) -> ModelSpec:
    """Checks every byte against the manifest, and the manifest against the digest if given.

    Raises PackageInvalid, naming the file at fault, for: a wrong digest; a missing, additional or
    changed file; a link or a special file; a path that leaves the package; a pickle, an archive
    or code, by name or by content; a model.yaml that does not describe a model.
    """
    if digest is not None and package_digest(directory) != digest:
        raise PackageInvalid(f"{MANIFEST_FILE} is not the one that was registered")
    expected = _read_manifest(directory)
    found = set(_files(directory)) - {MANIFEST_FILE}
    for name in sorted(found - expected.keys()):
        raise PackageInvalid(f"{name} is not in {MANIFEST_FILE}")
    for name, checksum in expected.items():
        if name not in found:
            raise PackageInvalid(f"{name} is in {MANIFEST_FILE} but missing")
        refuse_content(directory, name)
        if _sha256(directory / name) != checksum:
            raise PackageInvalid(f"{name} has changed since the package was made")
    if MODEL_FILE not in expected:
        raise PackageInvalid(f"{MODEL_FILE} is not in {MANIFEST_FILE}")
    spec = read_spec(directory)
    if spec.weights and spec.weights not in expected:
        raise PackageInvalid(f"weights {spec.weights} are missing")
    return spec


def triton_name(name: str, version: str) -> str:
    """The name of one version as a Triton model and a directory; no two versions share one.

    Model names hold no underscore, so it escapes what a directory cannot take and every dash that
    could be read as part of the ``--`` between name and version.
    """
    escaped = re.sub(r"-(?=-|$)", "_h", name.replace(":", "_c"))
    full = f"{escaped}--{version}"
    if len(full) <= 200:
        return full
    return f"{escaped[:100]}_s{hashlib.sha256(full.encode()).hexdigest()}"


def _read_manifest(directory: Path) -> dict[str, str]:
    expected: dict[str, str] = {}
    previous = ""
    for line in _read_text(directory, MANIFEST_FILE).split("\n")[:-1]:
        match = _LINE.fullmatch(line)
        if match is None:
            raise PackageInvalid(f"{MANIFEST_FILE} has a malformed line")
        name = match[2]
        if not _stays_inside(name):
            raise PackageInvalid(f"{MANIFEST_FILE} names {name!r}, outside the package")
        if name <= previous or name == MANIFEST_FILE:
            raise PackageInvalid(f"{MANIFEST_FILE} is not sorted")
        expected[name] = match[1]
        previous = name
    return expected


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    return all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)


def _files(directory: Path, prefix: str = "") -> Iterator[str]:
    """Names of all files below, refusing whatever is neither file nor directory."""
    if not directory.is_dir():
        raise PackageInvalid("the package is not a directory")
    with os.scandir(directory / prefix) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise PackageInvalid(f"{name} is a link or a special file")
            if entry.is_dir():
                yield from _files(directory, name + "/")
            else:
                yield name


def _read_text(directory: Path, name: str) -> str:
    try:
        with _open(directory / name) as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        if len(content) > MAX_TEXT_BYTES:
            raise PackageInvalid(f"{name} is larger than {MAX_TEXT_BYTES} bytes")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PackageInvalid(f"{name} is missing or cannot be read") from error


def _sha256(path: Path) -> str:
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BufferedReader:
    """Opens a regular file for reading, never through a link at its last step."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PackageInvalid(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
