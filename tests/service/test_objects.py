"""Single objects: one creator of many, whole replacements, and what is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.errors import InvalidArgument
from penstock.service.objects import Objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects((tmp_path / "store").as_uri())


async def test_of_many_creators_at_once_exactly_one_makes_the_object(objects: Objects) -> None:
    made = await asyncio.gather(*[objects.create("a/b", b"%d" % i) for i in range(20)])
    assert made.count(True) == 1
    assert await objects.get("a/b") == b"%d" % made.index(True)


async def test_what_is_put_replaces_what_was_there(objects: Objects) -> None:
    await objects.put("a/b", b"long before")
    await objects.put("a/b", b"now")
    assert await objects.get("a/b") == b"now"


async def test_an_object_that_is_not_there_is_none_and_can_be_deleted(objects: Objects) -> None:
    assert await objects.get("nothing") is None
    await objects.delete("nothing")
    await objects.put("a/b", b"x")
    await objects.delete("a/b")
    assert await objects.get("a/b") is None


async def test_names_and_folders_are_listed_sorted(objects: Objects) -> None:
    for path in ("t/2/y", "t/1/x", "t/1/a"):
        await objects.put(path, b"")
    assert await objects.names("t") == ["t/1/a", "t/1/x", "t/2/y"]
    assert await objects.folders("t") == ["1", "2"]
    assert await objects.folders("nothing") == []


def test_an_address_of_no_store_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Objects("http://example.com/ledger")
