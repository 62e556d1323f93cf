"""The first call of a process, with an empty kernel cache and with a full one.

Each figure is of a process of its own, from its start to the end of the first call, the import of
everything it needs included. scikit-learn's whole script on digits stands beside. Writes
results/cold.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

RESULTS = Path(__file__).parent / "results"
DIGITS = "from sklearn.datasets import load_digits; X, y = load_digits(return_X_y=True); X /= 16; "
ROWS = "import numpy as np, fastsoftmax as fs; Z = np.ones((1000, 100), np.float32); "
SCRIPTS = {
    "`linear_cross_entropy_value_and_grad`, (20k, 50, 10) float32": (
        "import numpy as np, fastsoftmax as fs; X = np.ones((20000, 50), np.float32); "
        "fs.linear_cross_entropy_value_and_grad(X, np.ones((10, 50)), np.zeros(20000, int))"
    ),
    "`softmax`, (1000, 100) float32": ROWS + "fs.softmax(Z, axis=1)",
    "`cross_entropy_value_and_grad`, (1000, 100) float32": (
        ROWS + "fs.cross_entropy_value_and_grad(Z, np.zeros(1000, int))"
    ),
    "`LogisticRegression` on digits": (
        DIGITS + "from fastsoftmax.linear_model import LogisticRegression as L; L().fit(X, y)"
    ),
    "`LogisticRegression` on digits as CSR": (
        DIGITS + "from scipy.sparse import csr_array; "
        "from fastsoftmax.linear_model import LogisticRegression as L; L().fit(csr_array(X), y)"
    ),
    "scikit-learn's `LogisticRegression` on digits": (
        DIGITS
        + "from sklearn.linear_model import LogisticRegression as L; L(max_iter=200).fit(X, y)"
    ),
    "`import numba` alone": "import numba",
}


def seconds(script: str, cache: str) -> float:
    """Seconds of a process that runs the script."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    lines = [
        "# The first call", "",
        f"{machine.description()['cpu']}, {machine.N_THREADS} cores, {time.strftime('%Y-%m-%d')}; "
        f"seconds from the start of the process, medians of {repeats}.", "",
        "| | cache empty | cache full |", "|---|---|---|",
    ]  # fmt: skip
    for name, script in SCRIPTS.items():
        cold, warm = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(seconds(script, cache))
                warm.append(seconds(script, cache))
        lines.append(f"| {name} | {statistics.median(cold):.1f} | {statistics.median(warm):.2f} |")
        print(lines[-1], flush=True)
    lines += ["", machine.foot(machine.description()), ""]
    (RESULTS / "cold.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
