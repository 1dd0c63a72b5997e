"""Keep the contracts of a release, so that later changes are held to them.

`python -m protos.release` writes protos/released/<version>.binpb for the version in pyproject.toml;
commit it with the release. A released version is never written again.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from protos.lint import RELEASED
from protos.sources import ROOT, write_image


def current_version() -> str:
    """The version in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def keep_release(version: str, folder: Path = RELEASED) -> Path:
    """Write the contracts' descriptor set, without comments, as ``version``.

    Raises FileExistsError when that version was released before.
    """
    folder.mkdir(exist_ok=True)
    released = folder / f"{version}.binpb"
    if released.exists():
        raise FileExistsError(f"{version} was released before: raise the version first")
    write_image(released, with_comments=False)
    return released


def main() -> int:
    """Keep the current version; the exit status."""
    try:
        print(f"wrote {keep_release(current_version()).relative_to(ROOT)}")
    except FileExistsError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
