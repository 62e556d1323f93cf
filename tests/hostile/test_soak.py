"""A short form of soak.py."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.by_hand
PROGRAM = Path(__file__).parent / "soak.py"


def soak(name):
    result = subprocess.run(
        [sys.executable, str(PROGRAM), "--seconds", "3", "--only", name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{name}: ok" in result.stdout


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_eight_threads(layer):
    soak(f"threads {layer}")


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children(method):
    soak(f"children {method}")


@pytest.mark.parametrize(
    "kind", ["empty", "torn", "garbage", "flipped", "unwritable", "not a folder", "shared"]
)
def test_caches(kind):
    soak(f"cache {kind}")
