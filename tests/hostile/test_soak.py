"""A short form of soak.py."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.by_hand,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems cannot fork"),
]
PROGRAM = Path(__file__).parent / "soak.py"


@pytest.mark.parametrize("kind", ["threads", "children", "cache"])
def test_soak(kind):
    result = subprocess.run(
        [sys.executable, str(PROGRAM), "--seconds", "3", "--only", kind],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip().endswith(", 0 failed")
    assert result.stdout.count(": ok") == {"threads": 3, "children": 9, "cache": 8}[kind]
