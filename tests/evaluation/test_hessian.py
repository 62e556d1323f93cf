"""The whole Hessian: of every shape, the same bits whatever the threads and chunks, its limits."""

import os
import subprocess
import sys
import textwrap

import numba
import numpy as np
import pytest
from oracle import WIDER, hessian
from problems import make_problem
from scipy import sparse

from fastsoftmax import SoftmaxObjective
from fastsoftmax._evaluation import threads
from fastsoftmax._evaluation.csr import as_csr

# Few classes, more classes than features, and panels of one vector, of several and of ragged ones.
SHAPES = [
    (1, 1, 2), (50, 1, 5), (300, 70, 3), (140, 130, 4), (90, 3, 70), (129, 7, 8), (60, 8, 7),
]  # fmt: skip


def make(shape, dtype, fit_intercept=True, **options):
    X, W, y, bias, s = make_problem(*shape, dtype)
    s[0] = 1
    options = {"n_classes": shape[2], "fit_intercept": fit_intercept, "sample_weight": s} | options
    obj = SoftmaxObjective(X, y, **options)
    return obj, obj.pack(W, bias if fit_intercept else None), (X, W, y, bias, s)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_wide_arithmetic(shape, dtype, fit_intercept):
    obj, w, (X, W, y, bias, s) = make(shape, dtype, fit_intercept, l2=0.01)
    rest = (np.eye(shape[2])[y], s, np.ones(shape[2]), 0.0, 0.01, fit_intercept)
    truth = hessian(X, W, bias, *rest, dtype=WIDER[np.dtype(dtype)])
    found = obj.hess(w)
    # Entry (i, j) is a sum of terms no larger than the geometric mean of two diagonal entries.
    largest = np.sqrt(np.outer(np.diag(truth), np.diag(truth)))
    assert (np.abs(found - truth) <= 64 * np.finfo(dtype).eps * largest).all()
    v = np.random.default_rng(0).standard_normal(obj.size)
    tolerance = 100 * np.finfo(dtype).eps * np.abs(found).max() * np.abs(v).sum()
    np.testing.assert_allclose(found @ v, obj.hessp(w, v), atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(400, 20, 6), (400, 3, 30)], ids=str)
def test_it_is_semidefinite_and_a_shift_of_all_classes_changes_nothing(shape, dtype):
    obj, w, _ = make(shape, dtype)
    H = obj.hess(w)
    assert np.array_equal(H, H.T)
    values = np.linalg.eigvalsh(H)
    assert values[0] > -10 * np.finfo(dtype).eps * values[-1]
    n, K = shape[1], shape[2]
    weights = H[:, : K * n].reshape(obj.size, K, n)
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-14 * np.abs(H).max())
    np.testing.assert_allclose(H[:, K * n :].sum(axis=1), 0, atol=1e-14 * np.abs(H).max())


def test_where_a_probability_is_close_to_one_no_digit_is_lost():
    X = np.array([[1.0], [2.0]])
    obj = SoftmaxObjective(X, [0, 1], fit_intercept=False)
    H = obj.hess(np.array([30.0, 0.0]))
    p = np.exp(-30.0 * X[:, 0])  # of the other class; p(1 - p) by the formula would be off by 1e-3
    np.testing.assert_allclose(H[0, 0], (p / (1 + p) ** 2 * X[:, 0] ** 2).mean(), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.bool_])
def test_csr_gives_the_bits_of_dense_rows_and_duplicates_add(dtype):
    X, W, y, bias, s = make_problem(333, 20, 5, np.float64)
    X = np.where(np.abs(X) > 1, 3 * X, 0).astype(dtype)
    dense = SoftmaxObjective(X, y, n_classes=5, sample_weight=s)
    rows = SoftmaxObjective(sparse.csr_array(X), y, n_classes=5, sample_weight=s)
    w = dense.pack(W, bias)
    assert np.array_equal(dense.hess(w), rows.hess(w))
    twice = sparse.csr_array((np.ones(4), [2, 2, 0, 1], [0, 3, 4]), shape=(2, 3))
    found = np.empty((2, 3))
    as_csr(twice, "X").write(found)
    assert np.array_equal(found, twice.toarray())


def test_csr_indices_that_were_changed_meanwhile():
    X = sparse.csr_array(np.eye(4))
    obj = SoftmaxObjective(X, [0, 1, 2, 1])
    for wrong in (4, -1, 1 << 30):
        X.indices[1] = wrong
        with pytest.raises(ValueError, match="^X: column indices out of range"):
            obj.hess(obj.x0)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core: nothing runs parallel")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3000, 40, 3), (5000, 4, 20), (999, 101, 10)], ids=str)
def test_the_same_bits_for_any_threads_and_any_chunks(shape, dtype, monkeypatch):
    # Blocks of a few hundred rows, so that there are several.
    monkeypatch.setattr("fastsoftmax._evaluation.hessian._BLOCK_BYTES", 1 << 16)
    obj, w, (X, _, y, _, s) = make(shape, dtype)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = obj.hess(w)
        numba.set_num_threads(2)
        for team in (True, False):
            monkeypatch.setattr(threads, "uses_team", lambda team=team: team)
            assert np.array_equal(obj.hess(w), alone)
    finally:
        numba.set_num_threads(before)

    def source():
        for start in range(0, len(X), 411):
            part = slice(start, start + 411)
            yield X[part], y[part], s[part]

    streamed = SoftmaxObjective.from_chunks(source, n_features=shape[1], n_classes=shape[2])
    assert np.array_equal(streamed.hess(w), alone)


@pytest.mark.parametrize("layout", ["fortran", "reversed", "float16", "bfloat16", "swapped"])
def test_other_layouts(layout):
    X, W, y, bias, _ = make_problem(200, 9, 4, np.float32)
    X = np.round(8 * X)  # numbers that float16 has
    given = {
        "fortran": np.asfortranarray,
        "reversed": lambda X: X[::-1].copy()[::-1],
        "float16": lambda X: X.astype(np.float16),
        "bfloat16": lambda X: X.astype(pytest.importorskip("ml_dtypes").bfloat16),
        "swapped": lambda X: X.astype(">f4"),
    }
    plain, other = (SoftmaxObjective(Z, y, n_classes=4) for Z in (X, given[layout](X)))
    w = plain.pack(W, bias)
    assert np.array_equal(plain.hess(w), other.hess(w))


def test_huge_weights_and_weights_of_zero():
    obj, w, (X, _, y, _, _) = make((60, 5, 3), np.float32, sample_weight=np.full(60, 1e30))
    plain = SoftmaxObjective(X, y, n_classes=3)
    np.testing.assert_allclose(obj.hess(w), plain.hess(w), rtol=1e-5, atol=1e-6)
    far = np.concatenate([X, np.full((1, 5), 1e30, np.float32)])  # its logits overflow
    s = np.append(np.ones(60), 0)
    weighted = SoftmaxObjective(far, np.append(y, 0), n_classes=3, sample_weight=s)
    np.testing.assert_allclose(weighted.hess(1e10 * w), plain.hess(1e10 * w), rtol=1e-5, atol=1e-9)


def test_without_the_kernels(tmp_path):
    program = """
        import sys, numpy as np
        from scipy import sparse
        from fastsoftmax import SoftmaxObjective
        X, y, s, w = (np.load(f"{sys.argv[1]}/{name}.npy") for name in "Xysw")
        for rows in (X, sparse.csr_array(X)):
            obj = SoftmaxObjective(rows, y, n_classes=4, l2=0.1, sample_weight=s)
            np.testing.assert_allclose(obj.hess(w), np.load(f"{sys.argv[1]}/H.npy"), atol=1e-14)
        assert "fastsoftmax._evaluation.hessian" not in sys.modules
    """
    obj, w, (X, _, y, _, s) = make((600, 6, 4), np.float64, l2=0.1)
    for name, array in {"X": X, "y": y, "s": s, "w": w, "H": obj.hess(w)}.items():
        np.save(tmp_path / f"{name}.npy", array)
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
