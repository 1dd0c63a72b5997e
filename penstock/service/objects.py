"""Single objects below one address of the artifact store: created once, replaced, read, listed.

Every method raises DependencyUnavailable when the store fails.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError

from penstock.service.artifacts import guarded, open_store


class Objects:
    """The objects of one address; raises InvalidArgument when it is none."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._store = open_store(self._uri, create=True)
        parts = urlsplit(self._uri)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None

    async def create(self, path: str, data: bytes) -> bool:
        """Writes an object unless there is one of that name; whether this call made it.

        Of any number of callers at once exactly one makes it.
        """
        return await guarded(self._uri, self._create(path, data))

    async def put(self, path: str, data: bytes) -> None:
        """Writes an object at once, in place of any that has its name."""
        await guarded(self._uri, self._put(path, data))

    async def get(self, path: str) -> bytes | None:
        """The object's bytes; None when there is none."""
        return await guarded(self._uri, self._get(path))

    async def delete(self, path: str) -> None:
        """Deletes an object; one that is not there is fine."""
        await guarded(self._uri, self._delete(path))

    async def names(self, folder: str) -> list[str]:
        """The paths of all objects below a folder, sorted."""
        return await guarded(self._uri, self._names(folder))

    async def folders(self, folder: str) -> list[str]:
        """The names of the folders directly in a folder, sorted."""
        return await guarded(self._uri, self._folders(folder))

    async def _create(self, path: str, data: bytes) -> bool:
        try:
            await obstore.put_async(self._store, path, data, mode="create")
        except AlreadyExistsError:
            return False
        await self._settle(path)
        return True

    async def _put(self, path: str, data: bytes) -> None:
        await obstore.put_async(self._store, path, data)
        await self._settle(path)

    async def _get(self, path: str) -> bytes | None:
        try:
            response = await obstore.get_async(self._store, path)
            return bytes(await response.bytes_async())
        except (FileNotFoundError, NotFoundError):
            return None

    async def _delete(self, path: str) -> None:
        try:
            await obstore.delete_async(self._store, path)
        except (FileNotFoundError, NotFoundError):
            return

    async def _names(self, folder: str) -> list[str]:
        found = []
        async for page in obstore.list(self._store, folder, chunk_size=1000):
            found += [meta["path"] for meta in page]
        return sorted(found)

    async def _folders(self, folder: str) -> list[str]:
        listed = await obstore.list_with_delimiter_async(self._store, folder)
        return sorted(path.rpartition("/")[2] for path in listed["common_prefixes"])

    async def _settle(self, path: str) -> None:
        # Object stores answer when the bytes are safe; a file system only when it is asked.
        if self._folder is not None:
            await asyncio.to_thread(_sync, self._folder / path)


def _sync(path: Path) -> None:
    for name in (path, path.parent):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            # Some file systems cannot sync a directory.
            if name is path:
                raise
        finally:
            os.close(descriptor)
