"""The choice of C by cross-validation, beside scikit-learn's: ``python bench/cv.py [--rows N]``.

`LogisticRegressionCV(Cs=10, cv=5)` of both libraries on standardised features with noisy labels,
each in a process of its own that has fitted a small problem before: the median of some fits, and by
how much the peak of memory grew in one. The scores have to agree. Writes results/cv.md; status 1 if
a promise is missed. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import machine
import numpy as np
from memory import MIB, growth

RESULTS = Path(__file__).parent / "results" / "cv.md"
N_FEATURES, N_CLASSES, SMALL_ROWS = 100, 10, 3000
LIBRARIES = {"scikit-learn": "sklearn.linear_model", "fastsoftmax": "fastsoftmax.linear_model"}
SCORINGS = ("accuracy", "neg_log_loss")
FASTER, SAME_SCORES, MEMORY = 25, 1e-3, 1.5  # promised; memory with X, as a multiple of X


def make(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return standardised features in float32, and labels of a linear model with noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, N_FEATURES), dtype=np.float32)
    W = rng.standard_normal((N_CLASSES, N_FEATURES), dtype=np.float32) / np.sqrt(N_FEATURES)
    y = (X @ W.T + rng.gumbel(size=(n_rows, N_CLASSES))).argmax(axis=1)
    X -= X.mean(axis=0)
    X /= X.std(axis=0)
    return X, y


def measure(library: str, scoring: str, directory: str, turns: int) -> dict[str, Any]:
    """Fit, several times; to be called in a fresh process."""
    import importlib

    make_model = importlib.import_module(LIBRARIES[library]).LogisticRegressionCV
    options = {"Cs": 10, "cv": 5, "scoring": scoring, "l1_ratios": (0,)}
    model = make_model(**options, use_legacy_attributes=False)
    X, y = np.load(Path(directory) / "X.npy"), np.load(Path(directory) / "y.npy")
    for _ in range(2):  # loads the kernels
        model.fit(X[:SMALL_ROWS], y[:SMALL_ROWS])
    grown = growth(lambda: model.fit(X, y))
    seconds = []
    for _ in range(turns):
        time.sleep(machine.PAUSE)
        started = time.perf_counter()
        model.fit(X, y)
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(seconds),
        "iterations": int(model.n_iter_.sum()),
        "memory": 1 + grown / X.nbytes,
        "grown": grown,
        "C": model.C_,
        "scores": model.scores_,
    }


def compare(scoring: str, directory: str, turns: int) -> tuple[list[str], bool]:
    """Lines of the table for a scoring, and whether the promises hold."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        found = {
            library: fresh.submit(measure, library, scoring, directory, turns).result()
            for library in LIBRARIES
        }
    theirs, ours = found["scikit-learn"], found["fastsoftmax"]
    apart = float(np.abs(theirs["scores"] - ours["scores"]).max())
    ratio = theirs["seconds"] / ours["seconds"]
    lines = [
        f"| {scoring} | {library} | {row['seconds']:.3g} | {row['iterations']} | "
        f"{row['grown'] / MIB:.0f} | {row['memory']:.2f} | {row['C']:.4g} | "
        for library, row in found.items()
    ]
    lines[0] += "| |"
    lines[1] += f"{apart:.1e} | **{ratio:.1f}x** |"
    holds = ratio >= FASTER and apart <= SAME_SCORES and ours["memory"] < MEMORY
    return lines, holds


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    on = machine.description()
    shape = f"({options.rows:,}, {N_FEATURES}, {N_CLASSES})"
    lines = [
        "# LogisticRegressionCV(Cs=10, cv=5)",
        "",
        f"{on['cpu']}, {on['threads']} threads, {on['date']}. {shape} float32, standardised, noisy "
        f"labels; seconds are medians of {options.turns}. Memory is the growth of the peak in one "
        "fit, in MiB, and X and that growth together as a multiple of X. Apart are the scores, at "
        f"most, over all folds and C. Promised: {FASTER}x, {SAME_SCORES:g}, and below {MEMORY}.",
        "",
        "| scoring | library | seconds | iterations | grew by | of X | C | scores apart | faster |",
        "|---" * 9 + "|",
    ]
    print("\n".join(lines), flush=True)
    missed = False
    with tempfile.TemporaryDirectory() as directory:
        X, y = make(options.rows)
        np.save(Path(directory) / "X.npy", X)
        np.save(Path(directory) / "y.npy", y)
        del X, y
        for scoring in SCORINGS:
            rows, holds = compare(scoring, directory, options.turns)
            missed |= not holds
            print("\n".join(rows), flush=True)
            lines += rows
    RESULTS.write_text("\n".join([*lines, "", machine.foot(on), ""]))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
