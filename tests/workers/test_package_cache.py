"""Only bytes that were verified a moment ago are loaded, from copies that nobody writes to."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from penstock.errors import NotFound, PackageInvalid
from penstock.service.packages import verify_package
from tests.workers.tiny_packages import tabular_package
from workers.package_cache import PackageCache


@pytest.fixture
def cache(tmp_path: Path) -> PackageCache:
    return PackageCache(tmp_path / "cache")


async def test_a_package_is_copied_under_its_digest_and_made_read_only(
    cache: PackageCache, tmp_path: Path
) -> None:
    spec, digest = tabular_package(tmp_path / "source", "mini")
    copy, found = await cache.obtain((tmp_path / "source").as_uri(), digest)
    assert copy == tmp_path / "cache" / digest.removeprefix("sha256:")
    assert found == spec
    writable = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    assert len(files) == 4
    assert not any(path.stat().st_mode & writable for path in files)


async def test_a_cached_package_needs_no_store(cache: PackageCache, tmp_path: Path) -> None:
    _, digest = tabular_package(tmp_path / "source", "mini")
    first, _ = await cache.obtain((tmp_path / "source").as_uri(), digest)
    again, _ = await cache.obtain((tmp_path / "gone").as_uri(), digest)
    assert again == first


async def test_a_cached_package_that_was_damaged_is_fetched_again(
    cache: PackageCache, tmp_path: Path
) -> None:
    _, digest = tabular_package(tmp_path / "source", "mini")
    copy, _ = await cache.obtain((tmp_path / "source").as_uri(), digest)
    (copy / "model.onnx").chmod(0o644)
    (copy / "model.onnx").write_bytes(b"evil")
    again, _ = await cache.obtain((tmp_path / "source").as_uri(), digest)
    verify_package(again, digest)


async def test_what_is_not_the_registered_package_leaves_no_trace(
    cache: PackageCache, tmp_path: Path
) -> None:
    _, digest = tabular_package(tmp_path / "source", "mini")
    _, other = tabular_package(tmp_path / "other", "mini", gain=2.0)
    with pytest.raises(PackageInvalid):
        await cache.obtain((tmp_path / "other").as_uri(), digest)
    with pytest.raises(NotFound):
        await cache.obtain((tmp_path / "missing").as_uri(), other)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:..", "sha256:../../etc", "/etc"])
async def test_a_digest_never_leads_out_of_the_cache(
    cache: PackageCache, tmp_path: Path, digest: str
) -> None:
    with pytest.raises(PackageInvalid):
        await cache.obtain((tmp_path / "source").as_uri(), digest)


async def test_packages_that_nobody_wants_are_removed(cache: PackageCache, tmp_path: Path) -> None:
    copies = []
    for number in range(3):
        source = tmp_path / f"source-{number}"
        _, digest = tabular_package(source, "mini", gain=float(number))
        copies.append((await cache.obtain(source.as_uri(), digest), digest))
    await cache.prune([copies[1][1]])
    assert [copy.exists() for (copy, _), _ in copies] == [False, True, False]


def test_what_a_killed_agent_was_fetching_is_removed(tmp_path: Path) -> None:
    (tmp_path / "cache" / ".fetching-x").mkdir(parents=True)
    PackageCache(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
