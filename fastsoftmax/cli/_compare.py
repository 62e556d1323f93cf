"""``train --compare``: how long scikit-learn takes to the same loss, on the same rows.

scikit-learn's L-BFGS cannot be told to stop at a loss: it is fitted again and again from zero, with
a quarter more iterations each time, and the first fit whose loss is low enough is reported.
"""

import math
import time
import warnings
from typing import Any

import numpy as np
import sklearn.linear_model

from fastsoftmax._evaluation.dataset import stack
from fastsoftmax.cli._console import out, progress_line
from fastsoftmax.cli._scores import score
from fastsoftmax.linear_model import LogisticRegression, SoftmaxRegression
from fastsoftmax.sources import ArraySource, ChunkSource

_EXCESS = 1e-3  # how much higher than ours scikit-learn's loss may be
_ITERATIONS = np.geomspace(8, 1000, 23).astype(int).tolist()
# A sample of the rows is taken where they need more memory than this, or where 500 iterations on
# them need more seconds, as estimated from 5 iterations on at most so many rows.
_MEMORY_BYTES, _SECONDS, _TRIAL_ROWS = 256 << 20, 30.0, 20_000


def compare_fits(model: SoftmaxRegression, training: ChunkSource, held_out: ChunkSource) -> None:
    """Pose ``model``'s problem to both libraries' LogisticRegression, and print their times."""
    with (
        progress_line("comparing with scikit-learn") as show,
        warnings.catch_warnings(action="ignore"),  # of fits that max_iter ends
    ):
        in_memory = isinstance(training, ArraySource)
        rows = _every_nth(1 if in_memory else -(-training.n_bytes // _MEMORY_BYTES), training)
        trial_rows = _every_nth(-(-rows.n_rows // _TRIAL_ROWS), rows)
        for _ in range(2):  # the first fit also loads libraries and starts threads
            trial = sklearn.linear_model.LogisticRegression(max_iter=5, tol=1e-12)
            _, seconds = _fit(trial, model, trial_rows)
        seconds *= rows.n_rows / trial_rows.n_rows * (500 / 5)
        rows = _every_nth(math.ceil(seconds / _SECONDS), rows)
        time.sleep(0.3)  # until the threads that OpenBLAS left spinning are asleep
        ours = LogisticRegression(tol=model.tol, max_iter=model.max_iter)
        our_loss, our_seconds = _fit(ours, model, rows)
        goal = our_loss * (1 + _EXCESS)
        for max_iter in _ITERATIONS:
            theirs = sklearn.linear_model.LogisticRegression(max_iter=max_iter, tol=1e-12)
            loss, seconds = _fit(theirs, model, rows)
            show(f"scikit-learn, {max_iter} iterations: loss {loss:.6f}, goal {goal:.6f}")
            stuck = theirs.n_iter_[0] < max_iter
            if loss <= goal or (stuck and rows.X.dtype == np.float64):
                break
            if stuck:  # its losses in float32 have too few digits for it to go on
                rows.X = rows.X.astype(np.float64)
    took = f"took {seconds / our_seconds:.1f} times as long to come within"
    result = took if loss <= goal else "ended before it came within"
    some = "" if rows.n_rows == training.n_rows else f"a sample of {rows.n_rows:,} of "
    out.print(
        f"scikit-learn's LogisticRegression {result} {_EXCESS:.1%} of fastsoftmax's loss. Timed: "
        f"fit() alone, in memory, on {some}{training.n_rows:,} training rows."
    )
    fits = ("fastsoftmax", ours, our_loss, our_seconds), ("scikit-learn", theirs, loss, seconds)
    for name, fit, its_loss, its_seconds in fits:
        out.print(
            f"{name} in {fit.coef_.dtype}: {its_seconds:.3f} s, {fit.n_iter_[0]:,} iterations, "
            f"loss {its_loss:.6f}, accuracy on held-out rows {score(fit, held_out).accuracy:.4f}"
        )


def _every_nth(n: int, source: ChunkSource) -> ArraySource:
    """Read every n-th row into memory."""
    chunks = []
    first = 0  # row of the next chunk that is taken
    for X, codes in source():
        chunks.append((X[first::n].copy(), source.classes[codes[first::n]]))
        first = (first - len(codes)) % n
    matrices, labels = zip(*chunks, strict=True)
    return ArraySource(source.path, stack(matrices), np.concatenate(labels))


def _fit(estimator: Any, model: SoftmaxRegression, rows: ArraySource) -> tuple[float, float]:
    """Fit either library's estimator to ``model``'s problem; return the loss and the seconds."""
    # For two classes the one row of weights w stands for a model's rows -w/2 and w/2.
    strength = (1 if len(rows.classes) == 2 else 2) * model.l2 * rows.n_rows
    C = 1 / strength if strength else np.inf
    estimator.set_params(C=C, fit_intercept=model.fit_intercept)
    started = time.perf_counter()
    estimator.fit(rows.X, rows.y)
    seconds = time.perf_counter() - started
    penalty = np.square(estimator.coef_).sum() / (2 * C * rows.n_rows)
    return score(estimator, rows).log_loss + penalty, seconds
