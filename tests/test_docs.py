"""Every example in a docstring or in the README runs and shows what it says."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fastsoftmax

MODULES = ["fastsoftmax"] + [
    module.name
    for module in pkgutil.walk_packages(fastsoftmax.__path__, "fastsoftmax.")
    if "_kernels" not in module.name and "dask" not in module.name  # see test_dask.py
]
ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
PUBLIC = [
    name for name in fastsoftmax.__all__ if name not in ("linear_model", "reference", "LinearGrad")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if ".torch" in name:
        pytest.importorskip("torch", reason='needs pip install "fastsoftmax[torch]"')
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name):
    assert ">>> " in getattr(fastsoftmax, name).__doc__


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_readme(example, tmp_path, monkeypatch):
    needs = (
        ("dask", "dask", "distributed"),
        ("torch", "torch", "torch"),
        ("statsmodels", "test", "statsmodels"),
    )
    for word, extra, module in needs:
        if word in example:
            pytest.importorskip(module, reason=f'needs pip install "fastsoftmax[{extra}]"')
    assert re.search(r"^ *assert ", example, re.MULTILINE), "an example shows what comes out"
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "example"})


def test_readme_has_its_five_examples():
    assert len(EXAMPLES) >= 5


def test_contributing_names_places_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    package = Path(fastsoftmax.__path__[0])
    known = {path.name for path in package.rglob("*.py")} | {"conftest.py"}
    folders = ("bench", "tests", ".ci")
    known |= {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    named = set(re.findall(r"\w+\.py\b", text))
    assert named <= known
    picture = text.partition("## Where things are")[2].partition("\n## ")[0]
    entries = {path.name for path in package.iterdir() if not path.name.startswith("__")}
    assert {e for e in entries if e != "py.typed"} <= set(
        re.findall(r"[\w.]+", picture.replace("/", " "))
    )
