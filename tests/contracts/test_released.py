"""Programs built against the last release go on working."""

from __future__ import annotations

from pathlib import Path

import pytest

from protos.lint import breaking_findings, last_release
from protos.release import keep_release

from .conftest import Edit

INFERENCE = "penstock/api/inference/v1/inference.proto"
USAGE = "penstock/api/usage/v1/usage.proto"


@pytest.fixture
def released() -> Path:
    """The last release's descriptor set."""
    path = last_release()
    assert path is not None, "protos/released holds no descriptor set"
    return path


def test_nothing_breaks_the_last_release(released: Path) -> None:
    assert breaking_findings(released) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        pytest.param(
            "  // Its probability, 0 to 1.\n  double probability = 2;\n",
            "",
            'Previously present field "2" with name "probability"',
            id="a field is gone",
        ),
        pytest.param(
            "double probability = 2;",
            "float probability = 2;",
            'changed type from "double" to "float"',
            id="a field has another type",
        ),
        pytest.param(
            "double probability = 2;",
            "double chance = 2;",
            'changed name from "probability" to "chance"',
            id="a field has another name",
        ),
        pytest.param(
            "FINISH_REASON_LENGTH = 2;",
            "FINISH_REASON_LENGTH = 3;",
            'Previously present enum value "2"',
            id="an enum value has another number",
        ),
        pytest.param(
            "returns (stream GenerateResponse)",
            "returns (GenerateResponse)",
            "changed from server streaming",
            id="a stream is none any more",
        ),
    ],
)
def test_a_change_that_breaks_programs_is_found(
    edited: Edit, released: Path, old: str, new: str, finding: str
) -> None:
    found = breaking_findings(released, edited(INFERENCE, old, new))
    assert any(finding in line for line in found), found


def test_a_removed_contract_is_found(edited: Edit, released: Path) -> None:
    protos = edited(USAGE, "UsageRow is", "UsageRow is")
    (protos / USAGE).unlink()
    found = breaking_findings(released, protos)
    assert any(USAGE in line and "deleted" in line for line in found), found


def test_an_added_field_breaks_nothing(edited: Edit, released: Path) -> None:
    field = "double probability = 2;\n  // Another figure.\n  double another = 100;"
    assert breaking_findings(released, edited(INFERENCE, "double probability = 2;", field)) == []


def test_the_last_release_is_the_highest_version_not_the_last_name(tmp_path: Path) -> None:
    assert last_release(tmp_path) is None
    for version in ("0.9.0", "0.10.0", "0.2.1"):
        keep_release(version, tmp_path)
    assert last_release(tmp_path) == tmp_path / "0.10.0.binpb"


def test_a_release_is_never_written_twice(tmp_path: Path) -> None:
    keep_release("1.0.0", tmp_path)
    with pytest.raises(FileExistsError, match=r"1\.0\.0 was released before"):
        keep_release("1.0.0", tmp_path)
