"""Preconditioners: how close they are to the inverse Hessian, and the algebra below them."""

import numpy as np
import pytest
from problems import noisy_problem

from fastsoftmax import SoftmaxObjective
from fastsoftmax._evaluation import plans
from fastsoftmax._optimize import minimize, preconditioners
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.linalg import cholesky_solver, one_blas_thread
from fastsoftmax._optimize.preconditioners import Preconditioners


@pytest.mark.parametrize("kind", ["bound", "full", "blocks"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_preconditioners_approximate_the_inverse_hessian(kind, fit_intercept, monkeypatch):
    monkeypatch.setattr("fastsoftmax._optimize.preconditioners._PASSES", 1e9)  # all rows
    X, y = noisy_problem()
    obj = SoftmaxObjective(X, y, l2=1e-3, fit_intercept=fit_intercept)
    centred = CentredProblem(obj.problem)
    made = Preconditioners(centred)
    v = minimize.minimize(obj.problem, tol=1e-6).state.x
    solve = {"bound": made._bound, "full": lambda: made._full(v),
              "blocks": lambda: made._blocks(v)}[kind]()  # fmt: skip
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(8):
        u = centred.without_shift(rng.standard_normal(obj.size))
        (back,) = solve(centred.hessp(v, u))
        scale = np.sqrt(u @ centred.hessp(v, u))
        ratios.append(np.sqrt(back @ centred.hessp(v, back)) / scale)
        if kind == "full":  # all rows were taken: it is the inverse
            assert np.sqrt((back - u) @ centred.hessp(v, back - u)) <= 1e-3 * scale
    if kind == "bound":
        assert max(ratios) <= 1 + 1e-6  # M is nowhere less than the Hessian
    assert min(ratios) > 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 1), (1500, 51), (777, 65), (300, 130)])
def test_gram_and_cholesky(shape, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    X, weight = rng.standard_normal(shape).astype(dtype), rng.random(shape[0])
    expected = (X.astype(float) * weight[:, None]).T @ X
    found = preconditioners._gram(X.__getitem__, weight)
    np.testing.assert_allclose(found, expected, atol=30 * np.finfo(dtype).eps * expected.max())
    monkeypatch.setattr(plans, "n_product_workers", lambda *_: 2)
    assert np.array_equal(preconditioners._gram(X.__getitem__, weight), found)
    scale = np.geomspace(1e-3, 1e3, shape[1])
    M, G = (found + np.eye(shape[1])) * scale[:, None] * scale, rng.standard_normal((4, shape[1]))
    np.testing.assert_allclose(cholesky_solver(M)(G @ M), G, rtol=1e-6, atol=1e-6)


def test_a_singular_matrix_is_made_definite():
    v = np.arange(1.0, 100)
    assert np.isfinite(cholesky_solver(np.outer(v, v))(v[None])).all()


@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_squares_may_lie_beyond_float32(factor):
    X = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    scaled = X * np.array([1, factor, 1], np.float32)
    expected = scaled.astype(float).T @ scaled.astype(float)
    np.testing.assert_allclose(
        np.diag(preconditioners._gram(scaled.__getitem__, np.ones(500))),
        np.diag(expected),
        rtol=1e-5,
    )


def test_blas_gets_its_threads_back_after_the_last_of_several_fits():
    from threadpoolctl import threadpool_info

    def counts():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = counts()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    assert set(counts()) == {1}
    first.__exit__(None, None, None)
    assert set(counts()) == {1}
    second.__exit__(None, None, None)
    assert counts() == before
