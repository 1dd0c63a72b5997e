"""The artifact store: directories of bytes under file://, s3://, gs:// or az:// addresses.

Credentials come from the environment, under the names each cloud's own tools use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from penstock.errors import DependencyUnavailable, InvalidArgument, NotFound
from penstock.service.packages import MANIFEST_FILE

SCHEMES = ("file", "s3", "gs", "az")
CHUNK_BYTES = 4 << 20
CONCURRENT_TRANSFERS = 8


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object below an address."""

    path: str
    """Relative to the address."""
    bytes: int


async def list_objects(uri: str) -> list[StoredObject]:
    """Every object below the address, by path. Raises DependencyUnavailable, InvalidArgument."""
    return await guarded(uri, _list(open_store(uri)))


async def fetch_directory(uri: str, directory: Path) -> int:
    """Copies every object below the address into an empty directory; returns their bytes.

    Raises NotFound when there is none, InvalidArgument for a name that would leave the directory,
    DependencyUnavailable when the store fails.
    """
    store = open_store(uri)
    found = await guarded(uri, _list(store))
    if not found:
        raise NotFound(f"nothing is stored at {uri}")
    for item in found:
        if not _stays_inside(item.path):
            raise InvalidArgument(f"{uri} holds an object named {item.path!r}")
    limit = asyncio.Semaphore(CONCURRENT_TRANSFERS)

    async def fetch(item: StoredObject) -> None:
        async with limit:
            await _fetch(store, item.path, directory / item.path)

    await guarded(uri, _all([fetch(item) for item in found]))
    return sum(item.bytes for item in found)


async def put_directory(directory: Path, uri: str) -> None:
    """Copies every file of a directory to the address, its manifest last: until then the copy is
    no package. Raises DependencyUnavailable, InvalidArgument."""
    store = open_store(uri, create=True)
    names = await asyncio.to_thread(_names, directory)
    limit = asyncio.Semaphore(CONCURRENT_TRANSFERS)

    async def put(name: str) -> None:
        async with limit:
            await obstore.put_async(store, name, directory / name)

    await guarded(uri, _all([put(name) for name in names if name != MANIFEST_FILE]))
    if MANIFEST_FILE in names:
        await guarded(uri, put(MANIFEST_FILE))


def open_store(uri: str, *, create: bool = False) -> ObjectStore:
    """The store below an address. Raises InvalidArgument, and NotFound for a missing directory
    unless it is to be made."""
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        raise InvalidArgument(f"{uri!r} is no address of {', '.join(SCHEMES)}")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidArgument(f"{uri!r} names a host")
        folder = Path(unquote(parts.path))
        if not create and not folder.is_dir():
            raise NotFound(f"nothing is stored at {uri}")
        return LocalStore(folder, mkdir=create)
    return from_url(uri)


async def _list(store: ObjectStore) -> list[StoredObject]:
    found = []
    async for page in obstore.list(store, chunk_size=1000):
        found += [StoredObject(meta["path"], meta["size"]) for meta in page]
    return sorted(found, key=lambda item: item.path)


async def _fetch(store: ObjectStore, path: str, target: Path) -> None:
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
    response = await obstore.get_async(store, path)
    with await asyncio.to_thread(target.open, "xb") as file:
        async for chunk in response.stream(min_chunk_size=CHUNK_BYTES):
            await asyncio.to_thread(file.write, chunk)


def _names(directory: Path) -> list[str]:
    return sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and "\\" not in path


async def _all(work: Sequence[Coroutine[None, None, None]]) -> None:
    """Runs all side by side; the first failure cancels the rest."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def guarded(uri: str, work: Coroutine[None, None, T]) -> T:
    """Turns the store's many exceptions into one that says which address failed."""
    try:
        return await work
    except (BaseError, OSError) as error:
        raise DependencyUnavailable(f"the artifact store failed at {uri}") from error
