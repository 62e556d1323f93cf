"""The types that a user's type checker sees in an installed package, which py.typed offers."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax

CLIENT = Path(__file__).parent / "helpers" / "typed_client.py"
MISTAKES = """
import fastsoftmax
fastsoftmax.softmaxx([1.0])
fastsoftmax.softmax([1.0], axis="rows")
fastsoftmax.linear_cross_entropy([[1.0]], [[1.0]])
number: int = fastsoftmax.softmax([1.0])
text: str = fastsoftmax.SoftmaxObjective([[1.0]], [0]).size
"""
# Without the user's own settings.
CHECKERS = {
    "mypy": ["--strict", "--config-file=", "--cache-dir=cache", "--python-executable"],
    "pyright": ["--pythonpath"],
}


# pyright brings Node.js with it.
BY_BOTH = pytest.mark.parametrize(
    "checker",
    [
        pytest.param("mypy", marks=pytest.mark.slow),
        pytest.param("pyright", marks=pytest.mark.by_hand),
    ],
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment that has the package, and NumPy beside it, in its site-packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site / "fastsoftmax").symlink_to(Path(fastsoftmax.__path__[0]))
    (site / "others.pth").write_text(str(Path(np.__path__[0]).parent))
    return folder


def check(checker, environment, source, folder):
    """Run a type checker on a program, in an empty folder."""
    pytest.importorskip(checker)
    program = folder / "program.py"
    program.write_text(source)
    python = environment / "bin" / "python"
    return subprocess.run(
        [sys.executable, "-m", checker, *CHECKERS[checker], str(python), program.name],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "MYPYPATH"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@BY_BOTH
def test_a_program_has_the_types_it_expects(checker, environment, tmp_path):
    result = check(checker, environment, CLIENT.read_text(), tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@BY_BOTH
def test_mistakes_are_seen(checker, environment, tmp_path):
    result = check(checker, environment, MISTAKES, tmp_path)
    wrong = {n for n in range(1, 9) if f"program.py:{n}:" in result.stdout}
    assert wrong == {3, 4, 5, 6, 7}, result.stdout + result.stderr


def test_the_program_runs():
    program = {"__name__": "program"}
    exec(compile(CLIENT.read_text(), CLIENT.name, "exec"), program)
    assert set(program["predicted"]) <= set(program["y"])
    assert program["streamed"].n_classes == program["objective"].n_classes == 3
