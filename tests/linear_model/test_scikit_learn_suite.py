"""scikit-learn's own tests of logistic regression, the whole file, with both classes replaced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastsoftmax

HELPERS = Path(__file__).parent.parent / "helpers"
PACKAGE = Path(fastsoftmax.__path__[0]).parent


@pytest.mark.slow
def test_scikit_learns_own_tests():
    """What fails is listed in the plugin, with reasons; it fails if another test does, or fewer."""
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "--pyargs", "-p", "sklearn_suite",
            "-p", "no:cacheprovider", "-c", os.devnull, "sklearn.linear_model.tests.test_logistic",
        ],
        cwd=HELPERS, env={**os.environ, "PYTHONPATH": f"{HELPERS}{os.pathsep}{PACKAGE}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
    assert "deselected" not in result.stdout
