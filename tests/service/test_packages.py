"""A package is accepted only if it is exactly what was sealed, and holds nothing but data."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from penstock.errors import PackageInvalid
from penstock.service.packages import (
    MANIFEST_FILE,
    MODEL_FILE,
    ModelSpec,
    package_digest,
    read_spec,
    triton_name,
    verify_package,
    write_package,
)
from tests.service.conftest import SPEC


class Exploit:
    """What a pickled weight file can hold."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("false",)


def seal(package: Path) -> None:
    """Writes a manifest that covers whatever is there, as an attacker would."""
    names = sorted(
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.name != MANIFEST_FILE
    )
    lines = [f"{hashlib.sha256((package / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (package / MANIFEST_FILE).write_text("".join(lines))


def test_a_sealed_package_is_accepted(package: Path) -> None:
    assert verify_package(package, package_digest(package)) == SPEC


def test_the_manifest_is_what_sha256sum_reads(package: Path) -> None:
    command = ["sha256sum", "--check", "--strict", MANIFEST_FILE]
    assert subprocess.run(command, cwd=package, capture_output=True).returncode == 0


def test_the_same_files_have_the_same_digest(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "copy")
    assert write_package(copy, SPEC) == package_digest(package)


def test_another_digest_is_refused(package: Path) -> None:
    with pytest.raises(PackageInvalid, match="not the one that was registered"):
        verify_package(package, "sha256:" + "0" * 64)


def change_a_byte(package: Path) -> None:
    content = bytearray((package / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (package / "model.safetensors").write_bytes(content)


def replace_by_a_link(package: Path) -> None:
    (package / "README.md").rename(package.parent / "outside.md")
    (package / "README.md").symlink_to(package.parent / "outside.md")


def replace_a_folder_by_a_link(package: Path) -> None:
    (package / "onnx").rename(package.parent / "outside")
    (package / "onnx").symlink_to(package.parent / "outside")


def replace_by_a_pipe(package: Path) -> None:
    (package / "README.md").unlink()
    os.mkfifo(package / "README.md")


def name_in_manifest(name: str) -> Callable[[Path], None]:
    def change(package: Path) -> None:
        (package.parent / "secret").write_text("secret")
        line = f"{hashlib.sha256(b'secret').hexdigest()}  {name}\n"
        lines = (package / MANIFEST_FILE).read_text().splitlines(keepends=True)
        lines = sorted([*lines, line], key=lambda text: text[66:])
        (package / MANIFEST_FILE).write_text("".join(lines))

    return change


def in_manifest(old: str, new: str) -> Callable[[Path], None]:
    def change(package: Path) -> None:
        text = (package / MANIFEST_FILE).read_text()
        assert old in text
        (package / MANIFEST_FILE).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: (p / MANIFEST_FILE).unlink(), "MANIFEST.sha256 is missing"),
        (change_a_byte, "model.safetensors has changed"),
        (lambda p: (p / "tokenizer.json").write_text("{}"), "tokenizer.json has changed"),
        (lambda p: (p / "extra.txt").write_text("hi"), "extra.txt is not in"),
        (lambda p: (p / "onnx" / "extra.txt").write_text("hi"), "onnx/extra.txt is not in"),
        (lambda p: (p / "README.md").unlink(), "README.md is in MANIFEST.sha256 but missing"),
        (replace_by_a_link, "README.md is a link"),
        (replace_a_folder_by_a_link, "onnx is a link"),
        (replace_by_a_pipe, "README.md is a link or a special file"),
        (name_in_manifest("../secret"), "outside the package"),
        (name_in_manifest("onnx/../../secret"), "outside the package"),
        (name_in_manifest("/etc/passwd"), "outside the package"),
        (name_in_manifest("./README.md"), "outside the package"),
        (name_in_manifest("onnx\\secret"), "outside the package"),
        (in_manifest("  README.md", " *README.md"), "malformed line"),
        (in_manifest("README.md", "README.md\r"), "outside the package"),
        (lambda p: (p / MANIFEST_FILE).write_bytes(b"\xff\xfe"), "cannot be read"),
        (
            lambda p: (p / MANIFEST_FILE).write_text(2 * (p / MANIFEST_FILE).read_text()),
            "not sorted",
        ),
    ],
)
def test_a_package_that_is_not_as_sealed_is_refused(
    package: Path, change: Callable[[Path], object], reason: str
) -> None:
    change(package)
    with pytest.raises(PackageInvalid, match=reason.replace("\\", "\\\\")):
        verify_package(package, None)


@pytest.mark.parametrize(
    "name",
    [
        *("pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.pickle"),
        *("model.joblib", "model.ckpt", "weights.npy", "weights.npz", "MODEL.PT"),
        *("modeling_custom.py", "onnx/backend.so"),
    ],
)
def test_pickles_and_programs_are_refused_by_name(package: Path, name: str) -> None:
    (package / name).write_text("harmless")
    seal(package)
    with pytest.raises(PackageInvalid, match=name):
        verify_package(package, None)


def zip_archive() -> bytes:
    target = io.BytesIO()
    np.savez(target, weights=np.ones(3))
    return target.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        *[pickle.dumps(Exploit(), protocol=protocol) for protocol in range(6)],
        *[pickle.dumps([1.0] * 1000, protocol=protocol) for protocol in range(2, 6)],
        zip_archive(),
        gzip.compress(pickle.dumps(Exploit())),
        b"\x93NUMPY\x01\x00" + b"\x00" * 100,
        b"\x7fELF" + b"\x00" * 100,
        b"#!/bin/sh\nfalse\n",
    ],
)
def test_pickles_archives_and_programs_are_refused_by_content(
    package: Path, content: bytes
) -> None:
    (package / "vocabulary.txt").write_bytes(content)
    seal(package)
    with pytest.raises(PackageInvalid, match=r"vocabulary\.txt is"):
        verify_package(package, None)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Exploit(), protocol=4),
        b"",
        struct.pack("<Q", 1 << 40),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}" + b"more than its tensors",
        struct.pack("<Q", 99)
        + json.dumps({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}})
        .ljust(99)
        .encode(),
    ],
)
def test_weights_that_are_no_safetensors_are_refused(package: Path, content: bytes) -> None:
    (package / "model.safetensors").write_bytes(content)
    seal(package)
    with pytest.raises(PackageInvalid, match="not a safetensors file"):
        verify_package(package, None)


@pytest.mark.parametrize("text", ["cat\ndog\n", "I\nyou.\n", "N.", "x^2", "", "{}", "0\n1\n2\n"])
def test_short_texts_are_not_taken_for_pickles(package: Path, text: str) -> None:
    (package / "vocabulary.txt").write_text(text)
    seal(package)
    verify_package(package, None)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "Mini"}, "name"),
        ({"name": "../mini"}, "name"),
        ({"name": "mini\n"}, "name"),
        ({"version": 1}, "version"),
        ({"version": "../1"}, "version"),
        ({"task": "mind-reading"}, "task"),
        ({"runtime": "pickle"}, "runtime"),
        ({"weights": "model.bin"}, "weights"),
        ({"weights": "../model.safetensors"}, "weights"),
        ({"weights": "other.safetensors"}, "other.safetensors are missing"),
        ({"dimensions": 0}, "dimensions"),
        ({"max_batch": 0}, "max_batch"),
        ({"task": "text-classification"}, "labels"),
        ({"task": "tabular-regression"}, "features"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_model_file_that_describes_no_model_is_refused(
    package: Path, changed: dict[str, object], reason: str
) -> None:
    described = yaml.safe_load((package / MODEL_FILE).read_text()) | changed
    (package / MODEL_FILE).write_text(yaml.safe_dump(described))
    seal(package)
    with pytest.raises(PackageInvalid, match=reason):
        verify_package(package, None)


@pytest.mark.parametrize("text", ["a: [", "", "- 1\n", "!!python/object/apply:os.system [ls]\n"])
def test_a_model_file_that_is_no_mapping_is_refused(package: Path, text: str) -> None:
    (package / MODEL_FILE).write_text(text)
    with pytest.raises(PackageInvalid, match=MODEL_FILE):
        read_spec(package)


def test_a_broken_package_cannot_be_sealed(package: Path) -> None:
    (package / "model.bin").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(PackageInvalid, match=r"model\.bin"):
        write_package(package, SPEC)


def test_a_spec_survives_its_file(package: Path) -> None:
    spec = ModelSpec(
        name="ft:base:acme:v-2",
        version="2026-11-01",
        task="tabular-classification",
        runtime="onnx",
        weights="model.onnx",
        labels=("no", "yes: ünïcode"),
        features=({"name": "country", "categories": ["de", "no"]}, {"name": "age"}),  # type: ignore[arg-type]
        quality={"accuracy": 0.97},
    )
    (package / "model.onnx").write_bytes(b"\x08\x08")
    write_package(package, spec)
    assert read_spec(package) == spec


def test_no_two_versions_share_a_triton_name() -> None:
    names = ["a", "a-", "a--b", "a-b", "a:b", "a.b", "a---", "a--", "a:", "a-:", "ac", "a.c"]
    names += ["a" * 127 + last for last in "-:bc"] + ["-".join("ab" * 60), ":".join("ab" * 60)]
    versions = ["1", "b", "b--1", "1-", "1--1", "C", "c.1"]
    found = {triton_name(name, version) for name in names for version in versions}
    assert len(found) == len(names) * len(versions)


def test_a_triton_name_is_a_file_name() -> None:
    for name in (":" + "ab:" * 42, "ft:base:acme:v-2", "a--"):
        made = triton_name("a" + name, "1")
        assert len(made) <= 200
        assert not set(made) & set(":/ ")
