"""Verified copies of model packages: one read-only directory a digest, checked before each use."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from penstock.errors import PackageInvalid
from penstock.service.artifacts import fetch_directory
from penstock.service.packages import ModelSpec, verify_package

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class PackageCache:
    """The directory that models are loaded from; one agent owns it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        for unfinished in self._directory.glob(".fetching-*"):
            _remove(unfinished)

    async def obtain(self, uri: str, digest: str) -> tuple[Path, ModelSpec]:
        """Where the package of that digest lies, every byte verified just now, and its spec.

        Raises PackageInvalid, or what ``fetch_directory`` raises.
        """
        if _DIGEST.fullmatch(digest) is None:
            raise PackageInvalid(f"{digest!r} is not a digest")
        target = self._directory / digest.removeprefix("sha256:")
        if await asyncio.to_thread(target.is_dir):
            try:
                return target, await asyncio.to_thread(verify_package, target, digest)
            except PackageInvalid as error:
                log.error("a cached package is damaged", extra={"cause": str(error)})
                await asyncio.to_thread(_remove, target)
        return target, await self._fetch(uri, digest, target)

    async def prune(self, wanted: Collection[str]) -> None:
        """Removes every package whose digest is not wanted."""
        kept = {digest.removeprefix("sha256:") for digest in wanted}
        await asyncio.to_thread(self._remove_others, kept)

    async def _fetch(self, uri: str, digest: str, target: Path) -> ModelSpec:
        fresh = Path(
            await asyncio.to_thread(tempfile.mkdtemp, prefix=".fetching-", dir=self._directory)
        )
        try:
            await fetch_directory(uri, fresh)
            await asyncio.to_thread(_make_read_only, fresh)
            # Verified after the last write that this process could make.
            spec = await asyncio.to_thread(verify_package, fresh, digest)
            await asyncio.to_thread(fresh.rename, target)
        except BaseException:
            await asyncio.to_thread(_remove, fresh)
            raise
        return spec

    def _remove_others(self, kept: Collection[str]) -> None:
        for entry in self._directory.iterdir():
            if entry.name not in kept and not entry.name.startswith("."):
                _remove(entry)


def _make_read_only(directory: Path) -> None:
    for path in directory.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    directory.chmod(0o755)


def _remove(directory: Path) -> None:
    for path in [directory, *directory.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(directory, ignore_errors=True)
