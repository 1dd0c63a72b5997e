"""Sources: one is one start of a gateway process, with a folder and a lock of its own.

``<ledger_dir>/<source>/lock`` is locked for as long as the process lives; the kernel gives the lock
up with the process, however it ends. ``<ledger_dir>/<source>/000001.journal`` and the following are
its write-ahead files. A source is never used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from pathlib import Path

_SOURCE = re.compile("[0-9a-f]{32}")
_LOCK = "lock"


class Source:
    """A source whose lock this process holds."""

    def __init__(self, name: str, folder: Path, lock: int) -> None:
        self.name = name
        """128 random bits in hex."""
        self.folder = folder
        self._lock = lock

    @classmethod
    def create(cls, ledger_dir: Path) -> Source:
        """A new one. Raises OSError."""
        ledger_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = secrets.token_hex(16)
        # Locked before others can see it: a visible folder without a lock is a dead one's.
        hidden = ledger_dir / f".{name}"
        hidden.mkdir(mode=0o700)
        lock = _lock(hidden)
        assert lock is not None  # noqa: S101 - nobody else knows the folder
        folder = hidden.rename(ledger_dir / name)
        _sync_folder(ledger_dir)
        return cls(name, folder, lock)

    @classmethod
    def take(cls, ledger_dir: Path, name: str) -> Source | None:
        """A dead process's source, unless it lives, or another process has it."""
        folder = ledger_dir / name
        try:
            lock = _lock(folder)
        except FileNotFoundError:
            return None
        if lock is None:
            return None
        source = cls(name, folder, lock)
        if not folder.is_dir():
            source.release()
            return None
        return source

    def files(self) -> list[tuple[int, Path]]:
        """The journals that are there, by number."""
        return [(int(path.stem), path) for path in sorted(self.folder.glob("??????.journal"))]

    def path(self, number: int) -> Path:
        """Where a journal lies."""
        return self.folder / f"{number:06}.journal"

    def sync(self) -> None:
        """Makes new files' names survive a loss of power."""
        _sync_folder(self.folder)

    def remove(self) -> None:
        """Deletes the folder with all that is in it, and gives up the lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Gives up the lock; the files stay."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sources(ledger_dir: Path) -> list[str]:
    """Every source that has a folder, living or dead."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(ledger_dir) if _SOURCE.fullmatch(name))
    return []


def _lock(folder: Path) -> int | None:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
