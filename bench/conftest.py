"""The benchmarks import their modules by plain name, and `machine` before NumPy."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import machine  # noqa: F401
