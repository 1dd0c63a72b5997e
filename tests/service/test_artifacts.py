"""Directories travel to the artifact store and back unchanged, and never out of their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import DependencyUnavailable, InvalidArgument, NotFound
from penstock.service.artifacts import CHUNK_BYTES, fetch_directory, list_objects, put_directory
from penstock.service.packages import package_digest, verify_package


def files(directory: Path) -> list[tuple[str, int]]:
    return sorted(
        (path.relative_to(directory).as_posix(), path.stat().st_size)
        for path in directory.rglob("*")
        if path.is_file()
    )


async def test_a_package_comes_back_as_it_went(package: Path, tmp_path: Path) -> None:
    uri = (tmp_path / "a store" / "models" / "mini").as_uri()
    await put_directory(package, uri)
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    count = await fetch_directory(uri, fetched)
    verify_package(fetched, package_digest(package))
    listed = await list_objects(uri)
    assert [(item.path, item.bytes) for item in listed] == files(package)
    assert count == sum(item.bytes for item in listed)


async def test_a_file_larger_than_a_chunk_comes_back_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 100)
    for folder in ("from", "to"):
        (tmp_path / folder).mkdir()
    (tmp_path / "from" / "large").write_bytes(content)
    await fetch_directory((tmp_path / "from").as_uri(), tmp_path / "to")
    assert (tmp_path / "to" / "large").read_bytes() == content


@pytest.mark.parametrize("uri", ["http://host/x", "/plain/path", "memory:///x", "file://host/x"])
async def test_other_addresses_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        await fetch_directory(uri, tmp_path)


async def test_an_address_that_holds_nothing_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(NotFound):
            await fetch_directory((tmp_path / name).as_uri(), tmp_path)


async def test_a_store_that_cannot_be_reached_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_REGION", "nowhere")
    with pytest.raises(DependencyUnavailable):
        await fetch_directory("s3://bucket/models/mini", tmp_path)
