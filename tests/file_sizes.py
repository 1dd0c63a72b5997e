"""Fails when a hand-written file has outgrown one idea: ``python tests/file_sizes.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LONGEST = 500
GENERATED = ("penstock/api/", "penstock/internal/")


def main() -> int:
    """Prints the files that are too long; the exit status."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.proto"],
        capture_output=True,
        text=True,
        check=True,
    )
    status = 0
    for name in listed.stdout.splitlines():
        if name.startswith(GENERATED) or not Path(name).is_file():
            continue
        lines = len(Path(name).read_text().splitlines())
        if lines > LONGEST:
            print(f"{name} has {lines} lines; {LONGEST} are the most", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
