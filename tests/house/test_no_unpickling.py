"""Loading a pickle runs what is in it, so nothing in the product loads one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.service.local.state import SOURCE_TREE

PRODUCT = ("penstock", "gateway", "workers", "scheduler", "protos", "examples", "benchmarks")
MODULES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"),
    *("jsonpickle", "skops"),
}
CALLS = {
    *("torch.load", "torch.jit.load", "numpy.load", "np.load", "pandas.read_pickle"),
    *("pd.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}
ARGUMENTS = {"allow_pickle": True, "weights_only": False, "trust_remote_code": True}


def unpickling(source: str) -> Iterator[str]:
    """Each way in which the source could load a pickle, or run code that came with a model."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            imported = {f"{module}.{name.name}" for name in node.names}
            if module.split(".")[0] in MODULES:
                yield module
            yield from imported & CALLS
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            arguments = [(a.arg, a.value) for a in node.keywords if a.arg]
            if called in CALLS and not _is_safe_yaml(called, node):
                yield called
            if called.endswith("import_module") and _first(node) in MODULES:
                yield f"import_module({_first(node)!r})"
            for name, value in arguments:
                if name in ARGUMENTS and not _is(value, not ARGUMENTS[name]):
                    yield f"{name}={ast.unparse(value)}"


def _is_safe_yaml(called: str, node: ast.Call) -> bool:
    loaders = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
    return called == "yaml.load" and any("SafeLoader" in ast.unparse(each) for each in loaders)


def _first(node: ast.Call) -> object:
    return node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None


def _is(value: ast.expr, wanted: object) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


def product_files() -> list[Path]:
    return [path for top in PRODUCT for path in sorted((SOURCE_TREE / top).rglob("*.py"))]


def test_nothing_in_the_product_loads_a_pickle() -> None:
    files = product_files()
    assert len(files) > 50
    found = {
        f"{path.relative_to(SOURCE_TREE)}: {way}"
        for path in files
        for way in unpickling(path.read_text())
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.externals",
        "from dill import loads",
        "from torch import load",
        "import torch\ntorch.load('model.pt')",
        "import numpy as np\nnp.load('x.npy')",
        "read(path, allow_pickle=True)",
        "read(path, weights_only=flag)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "importlib.import_module('pickle')",
        "yaml.load(text)",
    ],
)
def test_each_way_to_load_a_pickle_is_noticed(source: str) -> None:
    assert list(unpickling(source))


@pytest.mark.parametrize(
    "source",
    [
        "json.load(file)",
        "safetensors.torch.load_file(path)",
        "AutoModel.from_pretrained(folder, trust_remote_code=False, weights_only=True)",
        "yaml.load(text, Loader=CSafeLoader)",
    ],
)
def test_safe_ways_to_load_are_left_alone(source: str) -> None:
    assert not list(unpickling(source))
