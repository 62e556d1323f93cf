"""Rows that a fold leaves out."""

import numpy as np
import pytest
from scipy import sparse

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import Fold, InMemory
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.targets import make_targets

N = 30_000
KEPT = {
    "all but a run": (np.arange(N) < 7000) | (np.arange(N) >= 15_001),
    "the end": np.arange(N) >= 20_000,
    "runs": np.arange(N) // 6000 % 2 == 1,
    "every other row": np.arange(N) % 2 == 0,
    "one row": np.arange(N) == 12_345,
}


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("layout", [np.asarray, np.asfortranarray, sparse.csr_array])
def test_rows_left_out_do_not_count(kept, layout):
    rng = np.random.default_rng(0)
    X, y, s = rng.standard_normal((N, 4)), rng.integers(0, 3, N), rng.uniform(0.5, 2, N)
    keep = KEPT[kept]

    def problem(make, X, y, s):
        targets = make_targets(y, len(y), 3, X.dtype, sample_weight=s)
        return Problem(make(validate.as_features(layout(X)), targets), 3, 0.1, True)

    fold = problem(Fold, X, y, np.where(keep, s, 0))
    rows = problem(InMemory, X[keep], y[keep], s[keep])
    w, v = rng.standard_normal((2, rows.size))
    assert fold.data.total == pytest.approx(rows.data.total)
    for a, b in zip(fold.evaluate(w), rows.evaluate(w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fold.value(w), rows.value(w))
    np.testing.assert_allclose(
        fold.hessian_product(w, v), rows.hessian_product(w, v), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(fold.hessian_diagonal(w), rows.hessian_diagonal(w))


@pytest.mark.parametrize(
    ("kept", "most"),
    [("all but a run", 21_999), ("the end", 10_000), ("runs", 12_000), ("one row", 1)],
)
def test_long_runs_of_rows_left_out_are_not_read(kept, most):
    targets = make_targets(
        np.zeros(N, int), N, 2, np.dtype(float), sample_weight=KEPT[kept].astype(float)
    )
    chunks = list(Fold(np.ones((N, 1)), targets).chunks(1))
    assert sum(map(len, chunks)) == most
    assert all(len(chunk) == len(chunk.targets.labels) for chunk in chunks)
