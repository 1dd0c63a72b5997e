"""Generate the typed Python stubs in penstock/api and penstock/internal from the contracts.

`python -m protos.generate` writes them and removes what no contract gives any more;
`python -m protos.generate --check` only compares, and fails with the files that differ.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from protos.sources import PROTOS, ROOT, read_image, run_protoc, source_names, write_image

GENERATED = (Path("penstock/api"), Path("penstock/internal"))
"""The folders that hold generated code and nothing else, from the source tree."""

PACKAGE_FILE = '"""Generated from protos/ by `make proto`; do not edit."""\n'


def names_with_services(scratch: Path) -> list[str]:
    """The contracts that declare a service; the others need no gRPC stubs."""
    image = scratch / "image.binpb"
    write_image(image, with_comments=False)
    ours = set(source_names())
    return [file.name for file in read_image(image).file if file.service and file.name in ours]


def plugin(name: str) -> str:
    """protoc's option for a plugin that is installed beside this interpreter."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise SystemExit(f"{name} is missing: install the dev extra")
    return f"--plugin={name}={path}"


def write_stubs(out: Path) -> None:
    """Write every stub and every package's __init__.py below ``out``."""
    with tempfile.TemporaryDirectory() as scratch:
        serving = names_with_services(Path(scratch))
    messages = [f"--python_out={out}", plugin("protoc-gen-mypy"), f"--mypy_out=quiet:{out}"]
    run_protoc(messages, source_names())
    services = [
        f"--grpc_python_out={out}",
        plugin("protoc-gen-mypy_grpc"),
        f"--mypy_grpc_out=quiet:{out}",
    ]
    run_protoc(services, serving)
    for top in GENERATED:
        for folder in [out / top, *(out / top).glob("**/")]:
            if folder.is_dir():
                (folder / "__init__.py").write_text(PACKAGE_FILE)


def contents(tree: Path) -> dict[Path, bytes]:
    """Every generated file below ``tree`` by its path from there; bytecode is left out."""
    return {
        path.relative_to(tree): path.read_bytes()
        for top in GENERATED
        for path in sorted((tree / top).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def differences(tree: Path = ROOT) -> list[str]:
    """The generated files of ``tree`` that are missing, stale or not what the contracts give."""
    with tempfile.TemporaryDirectory() as scratch:
        write_stubs(Path(scratch))
        wanted = contents(Path(scratch))
    found = contents(tree)
    return [str(path) for path in sorted(wanted | found) if wanted.get(path) != found.get(path)]


def replace_stubs(tree: Path = ROOT) -> None:
    """Make the generated folders of ``tree`` hold exactly what the contracts give."""
    with tempfile.TemporaryDirectory() as scratch:
        write_stubs(Path(scratch))
        wanted = contents(Path(scratch))
    found = contents(tree)
    for path in found.keys() - wanted.keys():
        (tree / path).unlink()
    for path, data in wanted.items():
        if found.get(path) != data:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
    remove_empty_folders(tree)


def remove_empty_folders(tree: Path) -> None:
    """Remove generated folders that hold nothing but bytecode."""
    for top in GENERATED:
        for folder in sorted((tree / top).glob("**/"), reverse=True):
            held = [path for path in folder.iterdir() if path.name != "__pycache__"]
            if not held and folder.name != "__pycache__":
                shutil.rmtree(folder)


def main() -> int:
    """Write the stubs, or with --check compare them; the exit status."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="compare, write nothing")
    if not arguments.parse_args().check:
        replace_stubs()
        print(f"generated from {len(source_names())} contracts in {PROTOS.name}/")
        return 0
    differing = differences()
    for path in differing:
        print(f"{path} is not what protos/ gives: run `make proto`", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
