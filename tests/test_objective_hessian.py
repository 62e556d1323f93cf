"""Second derivatives of the objective: products, the diagonal, the whole Hessian."""

import numpy as np
import pytest
from oracle import hessian
from problems import make_problem
from scipy import sparse
from scipy.optimize import minimize

from fastsoftmax import SoftmaxObjective


def make(kind, targets, fit_intercept=True, l2=0.1):
    X, W, labels, bias, s = make_problem(70, 9, 5, np.float64)
    X = np.where(np.random.default_rng(5).random(X.shape) < 0.6, X, 0)
    class_weight, smoothing = np.ones(5), 0.0
    rows = np.eye(5)[labels]
    y = labels
    if targets == "soft":
        class_weight, smoothing = np.linspace(0.5, 2, 5), 0.1
    if targets == "probabilities":
        y = rows = np.random.default_rng(2).random((70, 5))
    obj = SoftmaxObjective(
        X if kind == "dense" else sparse.csr_array(X), y, n_classes=5, l2=l2,
        fit_intercept=fit_intercept, sample_weight=s, class_weight=class_weight,
        label_smoothing=smoothing,
    )  # fmt: skip
    w = obj.pack(W, bias if fit_intercept else None)
    H = hessian(X, W, bias, rows, s, class_weight, smoothing, l2, fit_intercept)
    return obj, w, H


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("targets", ["labels", "soft", "probabilities"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_against_the_dense_hessian(kind, targets, fit_intercept):
    obj, w, H = make(kind, targets, fit_intercept)
    rng = np.random.default_rng(3)
    for _ in range(3):
        v = rng.standard_normal(obj.size)
        product = obj.hessp(w, v)
        assert product.dtype == np.float64
        np.testing.assert_allclose(product, H @ v, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(obj.hess_diag(w), np.diag(H), rtol=1e-10, atol=1e-12)
    found = obj.hess(w)
    assert found.dtype == np.float64 and np.array_equal(found, found.T)
    np.testing.assert_allclose(found, H, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(1, 1, 2), (300, 70, 3), (777, 130, 11), (200, 31, 70)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_differences_of_gradients(dtype, shape):
    X, W, y, bias, s = make_problem(*shape, dtype)
    s[0] = 1
    fine = SoftmaxObjective(X.astype(float), y, n_classes=shape[2], l2=0.01, sample_weight=s)
    obj = SoftmaxObjective(X, y, n_classes=shape[2], l2=0.01, sample_weight=s)
    w = obj.pack(W, bias)
    v = np.random.default_rng(1).standard_normal(obj.size)
    step = 1e-5
    want = (fine(w + step * v)[1] - fine(w - step * v)[1]) / (2 * step)
    tolerance = (3e-5 if dtype == np.float32 else 1e-8) * np.abs(want).max()
    np.testing.assert_allclose(obj.hessp(w, v), want, atol=tolerance, rtol=0)


@pytest.mark.parametrize("method", ["trust-ncg", "trust-exact"])
def test_newtons_methods_take_it(method):
    X, _, y, _, _ = make_problem(300, 8, 4, np.float64)
    obj = SoftmaxObjective(X, y, l2=1e-2)
    second = {"hess": obj.hess} if method == "trust-exact" else {"hessp": obj.hessp}
    result = minimize(obj, obj.x0, jac=True, method=method, **second)
    assert result.success
    assert np.abs(obj(result.x)[1]).max() < 1e-4


def test_rows_of_weight_zero_do_not_count():
    X, W, y, bias, s = make_problem(90, 7, 3, np.float64)
    some = SoftmaxObjective(X[s > 0], y[s > 0], n_classes=3, sample_weight=s[s > 0])
    every = SoftmaxObjective(X, y, n_classes=3, sample_weight=s)
    w = every.pack(W, bias)
    v = np.linspace(-1, 1, every.size)
    np.testing.assert_allclose(every.hessp(w, v), some.hessp(w, v), rtol=1e-12)
    np.testing.assert_allclose(every.hess_diag(w), some.hess_diag(w), rtol=1e-12)
    np.testing.assert_allclose(every.hess(w), some.hess(w), rtol=1e-12, atol=1e-15)


def test_errors_name_the_argument():
    obj, w, _ = make("dense", "labels")
    with pytest.raises(ValueError, match=r"^v: expected shape \(50,\)"):
        obj.hessp(w, w[:-1])
    with pytest.raises(ValueError, match=r"^w: expected shape \(50,\)"):
        obj.hess_diag(w[:-1])
    with pytest.raises(ValueError, match=r"^w: expected shape \(50,\)"):
        obj.hess(w[:-1])
    large = SoftmaxObjective(np.ones((2, 4096)), [0, 1])
    with pytest.raises(ValueError, match=r"^size: expected at most 8192 parameters .* got 8194"):
        large.hess(large.x0)
