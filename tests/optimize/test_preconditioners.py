"""Preconditioners: how close they are to the inverse Hessian, and the algebra below them."""

import tracemalloc

import numpy as np
import pytest
from problems import noisy_problem

from fastsoftmax import SoftmaxObjective, reference
from fastsoftmax._evaluation import plans
from fastsoftmax._optimize import minimize
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.curvature import Sums, weighted_gram
from fastsoftmax._optimize.linalg import cholesky_solver, one_blas_thread
from fastsoftmax._optimize.preconditioners import Preconditioners


def ratios_and_distances(solve, centred, v):
    """Lengths of M⁻¹Hu, and of M⁻¹Hu - u, beside those of u in the metric of H, for random u."""
    rng, found = np.random.default_rng(1), []
    for _ in range(8):
        u = centred.without_shift(rng.standard_normal(centred.problem.size))
        (back,) = solve(centred.hessp(v, u))
        squares = [w @ centred.hessp(v, w) for w in (u, back, back - u)]
        found.append(np.sqrt(np.array(squares[1:]) / squares[0]))
    return np.transpose(found)


@pytest.mark.parametrize("kind", ["bound", "pooled", "full", "wide"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_preconditioners_approximate_the_inverse_hessian(kind, fit_intercept, monkeypatch):
    monkeypatch.setattr("fastsoftmax._optimize.preconditioners._FULL_PASSES", 1e9)
    if kind == "wide":
        monkeypatch.setattr("fastsoftmax._optimize.curvature.MAX_FEATURES", 10)
    X, y = noisy_problem()
    obj = SoftmaxObjective(X, y, l2=1e-3, fit_intercept=fit_intercept)
    centred = CentredProblem(obj.problem)
    made = Preconditioners(centred)
    v = minimize.minimize(obj.problem, tol=1e-6).state.x
    solve = made.first if kind == "bound" else made(v, kind == "full")
    ratios, distances = ratios_and_distances(solve, centred, v)
    assert min(ratios) > 0.05
    if kind == "bound":  # with ½ in its place M is nowhere less than the Hessian
        assert max(ratios) * np.sqrt(2 / obj.n_classes) <= 1 + 1e-6
    else:
        assert max(ratios) < {"pooled": 3, "full": 1.01, "wide": 20}[kind]
    if kind == "full":  # all rows were taken: it is the inverse
        assert max(distances) <= 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_pooled_blocks_are_those_of_the_hessian_where_covariances_are_equal(dtype, fit_intercept):
    """With one feature the covariance of a class is its variance, so that nothing is lost."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 1)) * 30 + 5
    y = (X / 20 * np.array([-1.0, 0, 2]) + rng.gumbel(size=(3000, 3))).argmax(axis=1)
    weight = rng.uniform(0.5, 2, 3000)
    obj = SoftmaxObjective(
        X.astype(dtype), y, l2=1e-3, sample_weight=weight, fit_intercept=fit_intercept
    )
    centred = CentredProblem(obj.problem)
    v = minimize.minimize(obj.problem, tol=1e-6).state.x
    W, c = centred.problem.split(v)
    x = np.stack([X[:, 0] - centred.mean[0], np.ones(3000)])[: 1 + fit_intercept]
    P = reference.softmax(x.T @ np.stack([W[:, 0], W[:, 0] if c is None else c])[: len(x)], axis=1)
    blocks = np.zeros((obj.size, obj.size))
    for k in range(3):
        q = weight / weight.sum() * P[:, k] * (1 - P[:, k])
        mine = [k, 3 + k][: len(x)]
        blocks[np.ix_(mine, mine)] = (x * q) @ x.T + np.diag([2e-3, 0.0])[: len(x), : len(x)]
    solve = Preconditioners(centred)(v)
    for _ in range(3):
        u = rng.standard_normal(obj.size)
        expected = centred.without_shift(np.linalg.solve(blocks, u))
        np.testing.assert_allclose(
            solve(u)[0], expected, rtol=1e-2, atol=1e-2 * abs(expected).max()
        )


def test_rows_that_curve_are_drawn_and_weigh_as_much_as_all():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 3))
    y = (X[:, 0] > 0) + 0  # classes that separate: only rows with X[:, 0] near 0 curve
    problem = SoftmaxObjective(X, y, sample_weight=rng.uniform(0.5, 2, 20_000)).problem
    centred = CentredProblem(problem)
    W = np.array([[-20.0, 0, 0, 0], [20.0, 0, 0, 0]])
    made = Sums(centred)
    rows, weight = made.drawn(W, 2000)
    p = 1 / (1 + np.exp(-40 * X[:, 0]))
    every = centred.sample.weights(np.arange(20_000))
    whole = np.sum(every * p * (1 - p)) / every.sum()
    np.testing.assert_allclose(np.sum(weight * (p * (1 - p))[rows]), whole, rtol=0.05)
    assert np.sum(np.abs(X[rows, 0]) < 0.1) > 1000
    even, weight = made.drawn(0 * W, 2000)
    np.testing.assert_array_equal(even, centred.sample.evenly(2000))
    np.testing.assert_allclose(weight.sum(), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 1), (1500, 51), (777, 65), (300, 130)])
def test_gram_and_cholesky(shape, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    X, weight = rng.standard_normal(shape).astype(dtype), rng.random(shape[0])
    expected = (X.astype(float) * weight[:, None]).T @ X
    found = weighted_gram(X.__getitem__, weight)
    np.testing.assert_allclose(found, expected, atol=30 * np.finfo(dtype).eps * expected.max())
    monkeypatch.setattr(plans, "n_product_workers", lambda *_: 2)
    assert np.array_equal(weighted_gram(X.__getitem__, weight), found)
    scale = np.geomspace(1e-3, 1e3, shape[1])
    M, G = (found + np.eye(shape[1])) * scale[:, None] * scale, rng.standard_normal((4, shape[1]))
    np.testing.assert_allclose(cholesky_solver(M)(G @ M), G, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-100, 1e-30, 1e20, 1e30])
@pytest.mark.parametrize("solver", minimize.SOLVERS)
def test_features_of_any_scale_are_fitted(factor, solver):
    X, y = noisy_problem()
    scaled = X * np.where(np.arange(X.shape[1]) == 2, factor, 1)
    losses = [
        minimize.minimize(SoftmaxObjective(M, y, l2=0).problem, solver=solver, max_iter=200)
        for M in (X, scaled)
    ]
    # The gradient of a feature is as small or large as the feature itself.
    assert losses[1].state.loss <= losses[0].state.loss * 1.02


def test_probabilities_of_many_rows_are_not_in_memory_together():
    centred = CentredProblem(
        SoftmaxObjective(np.zeros((20_000, 2)), np.zeros(20_000, int), n_classes=3000).problem
    )
    tracemalloc.start()
    Sums(centred)._curvatures(np.arange(20_000), np.zeros((3000, 3)))
    assert tracemalloc.get_traced_memory()[1] < 100 << 20  # all of them would take 480 MB
    tracemalloc.stop()


def test_a_singular_matrix_is_made_definite():
    v = np.arange(1.0, 100)
    assert np.isfinite(cholesky_solver(np.outer(v, v))(v[None])).all()


@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_squares_may_lie_beyond_float32(factor):
    X = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    scaled = X * np.array([1, factor, 1], np.float32)
    expected = scaled.astype(float).T @ scaled.astype(float)
    np.testing.assert_allclose(
        np.diag(weighted_gram(scaled.__getitem__, np.ones(500))), np.diag(expected), rtol=1e-5
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
