"""The first call of a process: with a wheel's object code, compiled, and from the disk cache.

Each figure is of a process of its own, from its start to the end of the first call, the import of
everything it needs included. The package is a wheel, built and installed into a temporary folder.
scikit-learn's whole script on digits stands beside. Writes results/cold.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import machine

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
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


def seconds(script: str, package: str, cache: str, objects: str) -> float:
    """Seconds of a process that runs the script, with the wheel's object code ("own") or "none"."""
    environment = os.environ | {
        "PYTHONPATH": package, "NUMBA_CACHE_DIR": cache, "FASTSOFTMAX_OBJECTS": objects,
    }  # fmt: skip
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=package, check=True)
    return time.perf_counter() - started


def rows(package: str, repeats: int) -> Iterator[str]:
    """Lines of the table, of a package in a folder of its own."""
    for name, script in SCRIPTS.items():
        wheel, compiled, warm = [], [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as cache:
                wheel.append(seconds(script, package, cache, "own"))
            with tempfile.TemporaryDirectory() as cache:
                compiled.append(seconds(script, package, cache, "none"))
                warm.append(seconds(script, package, cache, "none"))
        found = (f"{statistics.median(part):.2f}" for part in (wheel, compiled, warm))
        yield f"| {name} | {' | '.join(found)} |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    lines = [
        "# The first call", "",
        f"{machine.description()['cpu']}, {machine.N_THREADS} cores, {time.strftime('%Y-%m-%d')}; "
        f"seconds from the start of the process, medians of {repeats}.", "",
        "| | wheel, cache empty | compiled, cache empty | cache full |", "|---|---|---|---|",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as package:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        built = os.environ | {"FASTSOFTMAX_OBJECTS": "own"}
        subprocess.run([*install, "--target", package, str(ROOT)], env=built, check=True)
        for line in rows(package, repeats):
            lines.append(line)
            print(line, flush=True)
    lines += ["", machine.foot(machine.description()), ""]
    (RESULTS / "cold.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
