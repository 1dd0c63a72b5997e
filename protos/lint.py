"""Hold the contracts to buf's STANDARD rules, to our own, and to what was released.

`python -m protos.lint` fails with every finding: style, and changes that would break a program
built against the last release.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from protos import rules
from protos.sources import PROTOS, ROOT, read_image, write_image

RELEASED = PROTOS / "released"
"""One descriptor set a release, named after its version."""


def last_release(folder: Path = RELEASED) -> Path | None:
    """The descriptor set of the highest released version; None before the first release."""
    releases = folder.glob("*.binpb")
    return max(
        releases, key=lambda path: [int(part) for part in path.stem.split(".")], default=None
    )


def buf(*arguments: str | Path) -> list[str]:
    """Run the buf that is installed beside this interpreter; its findings.

    It is given descriptor images, so it needs neither a module cache nor a network.
    """
    command = [str(Path(sys.executable).with_name("buf")), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode != 0 and not lines:
        return [f"buf {arguments[0]} failed with status {done.returncode}"]
    return lines if done.returncode != 0 else []


def style_findings(protos: Path = PROTOS) -> list[str]:
    """What buf's STANDARD rules and ours have against the contracts in ``protos``."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        write_image(image, protos)
        config = ROOT / "buf.yaml"
        return [
            *buf("lint", image, "--config", config, "--path", "penstock"),
            *rules.findings(read_image(image)),
        ]


def breaking_findings(released: Path, protos: Path = PROTOS) -> list[str]:
    """What in ``protos`` breaks programs built against the descriptor set ``released``."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        write_image(image, protos)
        config = ROOT / "buf.yaml"
        return buf(
            "breaking", image, "--against", released, "--config", config, "--path", "penstock"
        )


def main() -> int:
    """Print every finding; the exit status."""
    found = style_findings()
    released = last_release()
    if released:
        found += breaking_findings(released)
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
