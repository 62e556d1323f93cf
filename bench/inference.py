"""Standard errors of a multinomial logit beside statsmodels', and the whole Hessian beside a BLAS.

Each library fits and gives standard errors in a process of its own, after one call that is not
timed, and the answers are compared. The Hessian is timed in turns with SciPy's dsyrk or ssyrk on
rows p ⊗ (x, 1), which are half of what it takes; forming those rows is not counted. Writes
results/inference.md.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np

RESULTS = Path(__file__).parent / "results"
TURNS = 3
SHAPES = [
    (1_000_000, 20, 3, np.float32), (60_000, 100, 10, np.float32), (60_000, 100, 10, np.float64),
    (2_000, 400, 20, np.float64), (2_000, 7, 1000, np.float64), (2_000, 90, 90, np.float64),
]  # fmt: skip
# The BLAS gets so many rows at most; its time is theirs, times how many more there are.
BLAS_ROWS = 2048


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """X and y of the survey that statsmodels comes with, or of a simulated larger one."""
    if name == "anes96":
        from statsmodels.datasets import anes96

        survey = anes96.load_pandas()
        return survey.exog.to_numpy(float), survey.endog.to_numpy(int)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 20))
    logits = X @ rng.standard_normal((20, 6)) / 3 + rng.gumbel(size=(len(X), 6))
    return X, logits.argmax(axis=1)


def by_statsmodels(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and standard errors (K - 1, D + 1), the intercept last."""
    from statsmodels.discrete.discrete_model import MNLogit

    fit = MNLogit(y, np.column_stack([X, np.ones(len(X))])).fit(disp=False)
    return np.asarray(fit.params).T, np.asarray(fit.bse).T


def by_fastsoftmax(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same from `SoftmaxObjective.hess`."""
    from scipy.optimize import minimize

    from fastsoftmax import SoftmaxObjective

    obj = SoftmaxObjective(X, y)
    fit = minimize(obj, obj.x0, jac=True, hess=obj.hess, method="trust-exact")
    W, b = obj.unpack(fit.x)
    free = np.concatenate([part[1:].ravel() for part in obj.unpack(np.arange(obj.size))])
    covariance = np.linalg.inv(len(y) * obj.hess(fit.x)[np.ix_(free, free)])
    errors = np.sqrt(np.diag(covariance))
    K, D = W.shape
    sorted_errors = errors[: (K - 1) * D].reshape(K - 1, D), errors[(K - 1) * D :]
    return np.column_stack([W[1:] - W[0], b[1:] - b[0]]), np.column_stack(sorted_errors)


def seconds(run: Any) -> float:
    """Seconds of one call, after a pause."""
    time.sleep(machine.PAUSE)
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def fit_by(library: Any, name: str) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """Median seconds of a library's answer, and the answer; in a process of its own."""
    X, y = data(name)
    answer = library(X, y)
    times = [seconds(lambda: library(X, y))]
    while len(times) < TURNS and times[0] < 1:
        times.append(seconds(lambda: library(X, y)))
    return statistics.median(times), answer


def fits() -> list[str]:
    """The table of standard errors."""
    lines = ["| data | (N, D, K) | statsmodels | fastsoftmax | | largest difference |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name in ("anes96", "simulated"):
        X, y = data(name)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            both = [pool.apply(fit_by, (lib, name)) for lib in (by_statsmodels, by_fastsoftmax)]
        (theirs, (params, errors)), (ours, (our_params, our_errors)) = both
        gaps = (our_params - params) / errors, our_errors / errors - 1
        gap = max(np.abs(part).max() for part in gaps)
        assert gap < 1e-3
        lines.append(f"| {name} | ({len(X):,}, {X.shape[1]}, {len(params) + 1}) | {theirs:.3f} | "
                     f"{ours:.3f} | {theirs / ours:.1f}x | {gap:.0e} |")  # fmt: skip
        print(lines[-1], flush=True)
    return lines


def hessian(N: int, D: int, K: int, dtype: Any) -> str:
    """Time a Hessian, a product and a Hessian product in turns; return a line of the table."""
    from scipy.linalg.blas import dsyrk, ssyrk

    from fastsoftmax import SoftmaxObjective

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((N, D)).astype(dtype), rng.integers(0, K, N)
    obj = SoftmaxObjective(X, y, n_classes=K)
    w = rng.standard_normal(obj.size) / np.sqrt(D)
    rows = rng.random((min(N, BLAS_ROWS), obj.size)).astype(dtype).T
    product = ssyrk if dtype == np.float32 else dsyrk
    runs = (lambda: obj.hess(w)), (lambda: product(1.0, rows)), (lambda: obj.hessp(w, w))
    for run in runs:
        run()
    times = [[seconds(run) for run in runs] for _ in range(TURNS)]
    ours, blas, hessp = (statistics.median(t) for t in zip(*times, strict=True))
    blas *= N / rows.shape[1]
    line = (f"| ({N:,}, {D}, {K:,}) | {np.dtype(dtype)} | {obj.size:,} | {ours:.3g} | "
            f"{blas:.3g} | {blas / ours:.1f}x | {hessp * obj.size:.3g} |")  # fmt: skip
    print(line, flush=True)
    return line


def main() -> None:
    """Measure and write both tables."""
    about = machine.description()
    lines = [
        "# Standard errors, and the whole Hessian", "",
        f"{about['cpu']}, {machine.N_THREADS} cores, {about['date']}; seconds, medians of {TURNS}, "
        "or one run where it takes longer than a second.",
        "", "Fit and standard errors of a multinomial logit, statsmodels' `MNLogit` and "
        "`SoftmaxObjective.hess` with SciPy's trust-exact:", "", *fits(), "",
        "`SoftmaxObjective.hess` beside the BLAS's product of rows p ⊗ (x, 1) with themselves, "
        "which is half of a Hessian, and beside as many Hessian products as there are parameters:",
        "",
        "| (N, D, K) | dtype | size | hess | BLAS | | size times hessp |",
        "|---|---|---|---|---|---|---|",
        *(hessian(*shape) for shape in SHAPES), "", machine.foot(about), "",
    ]  # fmt: skip
    (RESULTS / "inference.md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
