"""Demo packages: built once a recipe, sealed, the same every time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.service.packages import read_spec, verify_package
from workers.demo_models.building import Built, build_all, recipe_digest, sources
from workers.demo_models.recipes import MODULES, recipe


def build(out: Path, *names: str) -> list[tuple[Built, bool]]:
    return list(build_all(out, names, jobs=1))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which diabetes was built."""
    directory = tmp_path_factory.mktemp("artifacts")
    ((_, fresh),) = build(directory, "diabetes")
    assert fresh
    return directory


def test_a_built_package_is_sealed_and_says_how_good_it_is(out: Path) -> None:
    ((built, _),) = build(out, "diabetes")
    spec = verify_package(out / "diabetes", built.package)
    assert spec.quality == built.quality == read_spec(out / "diabetes").quality
    card = (out / "diabetes" / "README.md").read_text()
    assert f"| r2 | {spec.quality['r2']:.4g} |" in card
    assert "## Limits" in card


def test_a_package_of_the_same_recipe_is_not_built_again(out: Path) -> None:
    ((_, fresh),) = build(out, "diabetes")
    assert not fresh


def test_a_recipe_gives_the_same_bytes_every_time(out: Path, tmp_path: Path) -> None:
    ((before, _),) = build(out, "diabetes")
    ((again, fresh),) = build(tmp_path, "diabetes")
    assert fresh
    assert again.package == before.package


def test_a_package_of_another_recipe_is_replaced(out: Path) -> None:
    record = out / "diabetes.built.json"
    record.write_text(record.read_text().replace(recipe_digest("diabetes"), "sha256:old"))
    ((built, fresh),) = build(out, "diabetes")
    assert fresh
    assert built.recipe == recipe_digest("diabetes")


def test_a_damaged_package_is_built_again(out: Path) -> None:
    ((before, _),) = build(out, "diabetes")
    (out / "diabetes" / "model.onnx").write_bytes(b"damaged")
    ((built, fresh),) = build(out, "diabetes")
    assert fresh
    assert built.package == before.package


def test_a_recipe_covers_the_modules_that_it_imports_and_no_other() -> None:
    scenes, fraud = ({file.name for file in sources(MODULES[name])} for name in ("scenes", "fraud"))
    assert scenes == {"scenes.py", "shape_scenes.py", "average_precision.py"}
    assert fraud == {"fraud.py"}


@pytest.mark.parametrize("name", MODULES)
def test_every_recipe_has_a_card_that_admits_its_limits(name: str) -> None:
    card = recipe(name).CARD
    if name != "minilm":  # brings its authors' card
        assert re.findall(r"^## (.+)$", card, re.MULTILINE) == ["Data", "Training", "Limits"]


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers.demo_models", "--out", str(tmp_path), "gpt-9"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "no such demo model: gpt-9; there are" in result.stderr
    assert "fraud" in result.stderr


def test_a_second_builder_waits_and_finds_the_work_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers.demo_models", "--out", str(tmp_path), "diabetes"]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(builder.communicate()[0].split(";")[0] for builder in builders)
    assert [builder.returncode for builder in builders] == [0, 0]
    assert said[1] == "diabetes: up to date"
    assert said[0].startswith("diabetes: built in")
