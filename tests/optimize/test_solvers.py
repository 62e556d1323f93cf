"""Solvers and metrics: optima, passes, and states one can go on from."""

import copy
import math

import numpy as np
import pytest
from problems import noisy_problem
from scipy import sparse
from sklearn.datasets import load_digits

from fastsoftmax import SoftmaxObjective
from fastsoftmax._optimize import minimize, solvers
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.curvature import Sums


class Quadratic:
    """½ (x - 3)ᵀ A (x - 3)."""

    def __init__(self, A):
        self.A = A

    def __call__(self, x):
        return float((x - 3) @ self.A @ (x - 3)) / 2, self.A @ (x - 3)

    def hessp(self, x, v):
        return self.A @ v


def task_of(objective, preconditioner=lambda x, precise: lambda *g: list(g), **options):
    settings = {"tol": 1e-8, "max_iter": 100, "noise": 1e-16, **options}
    return solvers.Minimization(
        objective, preconditioner, lambda g: float(np.abs(g).max()), **settings
    )


@pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton-cg"])
def test_solvers_know_nothing_of_data(solver):
    task = task_of(Quadratic(np.diag([1.0, 2.0, 5.0])))
    state = solvers.minimize(task, task.start(np.zeros(3)), solver)
    np.testing.assert_allclose(state.x, 3.0, atol=1e-7)
    assert state.norms[-1] <= 1e-8
    assert state.message == ""
    assert state.n_evaluations >= state.n_iter >= 1
    assert (state.n_products > 0) == (solver == "newton-cg")


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_the_right_preconditioner_needs_one_step(solver):
    A = np.array([[1e4, 3.0], [3.0, 1e-2]])
    inverse = np.linalg.inv(A)
    task = task_of(Quadratic(A), lambda x, precise: lambda *g: [inverse @ v for v in g], tol=1e-6)
    state = solvers.minimize(task, task.start(np.zeros(2)), solver)
    assert state.n_iter <= 2  # the second one shows that there is nothing left to gain


def test_it_stops_where_nothing_improves_any_more():
    def stuck(x):
        return 1.0 + float((x**2).sum()) * 1e-30, np.ones(2)

    task = task_of(stuck, noise=0.0)
    state = solvers.minimize(task, task.start(np.ones(2)), "lbfgs")
    assert state.message == solvers.EXHAUSTED
    assert state.n_iter < task.max_iter


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["auto", "lbfgs", "newton-cg"])
def test_few_passes_where_labels_are_noisy(dtype, solver):
    X, y = noisy_problem(dtype)
    last = minimize.minimize(SoftmaxObjective(X, y, l2=1e-5).problem, solver=solver, tol=1e-4)
    exact = minimize.minimize(SoftmaxObjective(X.astype(float), y, l2=1e-5).problem, tol=1e-8)
    W, b = last.parameters
    obj = SoftmaxObjective(X.astype(float), y, l2=1e-5)
    assert last.gradient_norm <= 1e-4
    assert obj.value(obj.pack(W, b)) <= exact.state.loss * (1 + 1e-5)
    assert last.passes <= 60
    assert math.isclose(W.sum(), 0, abs_tol=1e-6 * np.abs(W).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_passes_where_classes_separate(dtype):
    X, y = load_digits(return_X_y=True)
    obj = SoftmaxObjective(X.astype(dtype), y, l2=1e-6)
    last = minimize.minimize(obj.problem, tol=1e-5, max_iter=300)
    assert last.gradient_norm <= 1e-5
    assert last.passes < 120


def test_sparse_and_dense_wide_problems_have_the_same_optimum():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 30))
    y = (X[:, :5] + rng.gumbel(size=(3000, 5))).argmax(axis=1)
    wide = sparse.random_array((3000, 3000), density=0.01, format="csr", rng=0)
    wide = sparse.csr_array(sparse.hstack([sparse.csr_array(X), wide]))
    obj = SoftmaxObjective(wide, y, l2=1e-2)
    assert Sums(CentredProblem(obj.problem)).is_wide
    last = minimize.minimize(obj.problem, tol=1e-5, max_iter=300)
    assert last.gradient_norm <= 1e-5
    same = minimize.minimize(
        SoftmaxObjective(wide.toarray(), y, l2=1e-2).problem, tol=1e-5, max_iter=300
    )
    assert last.state.loss == pytest.approx(same.state.loss, rel=1e-6)


def test_frequent_features_of_a_wide_problem_are_taken_together(monkeypatch):
    X, y = noisy_problem(rows=4000, n_features=30)
    rare = sparse.random_array((4000, 2500), density=0.002, format="csr", rng=0)
    obj = SoftmaxObjective(sparse.csr_array(sparse.hstack([sparse.csr_array(X), rare])), y, l2=1e-4)
    assert Sums(CentredProblem(obj.problem)).is_wide
    passes = {}
    for head in (1, 1024):
        monkeypatch.setattr("fastsoftmax._optimize.curvature.HEAD", head)
        last = minimize.minimize(obj.problem, tol=1e-4, max_iter=3000)
        assert last.gradient_norm <= 1e-4
        passes[head] = last.passes
    assert passes[1024] < passes[1] / 2


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7, 16, 25, 58, 59, 60, 61, 62])
def test_a_state_goes_on_bit_by_bit(stop_after):
    X, y = load_digits(return_X_y=True)
    obj, states = SoftmaxObjective(X, y, l2=1e-8), []
    options = {"tol": 1e-12, "max_iter": 70}
    whole = minimize.minimize(
        obj.problem, progress=lambda it: states.append(copy.deepcopy(it.state)), **options
    )
    assert whole.state.n_iter == 70
    resumed = minimize.minimize(obj.problem, state=states[stop_after], **options)
    np.testing.assert_array_equal(resumed.state.x, whole.state.x)
    assert resumed.state.n_iter == whole.state.n_iter


def test_an_interruption_keeps_what_was_reached():
    X, y = noisy_problem()
    obj = SoftmaxObjective(X, y, l2=1e-5)

    def interrupt(iterate):
        if iterate.state.n_iter == 3:
            raise KeyboardInterrupt

    last = minimize.minimize(obj.problem, tol=1e-8, progress=interrupt)
    assert last.state.message == minimize.INTERRUPTED
    assert last.state.n_iter == 3
    assert last.state.loss < obj.value(obj.x0)


def test_preconditioners_are_renewed(monkeypatch):
    rng = np.random.default_rng(0)
    X = sparse.random_array((2000, 300), density=0.05, format="csr", rng=rng, dtype=np.float64)
    y = (X @ rng.standard_normal((300, 4)) * 4 + rng.gumbel(size=(2000, 4))).argmax(axis=1)
    monkeypatch.setattr("fastsoftmax._optimize.curvature.MAX_FEATURES", 10)
    monkeypatch.setattr("fastsoftmax._optimize.curvature.HEAD", 20)
    obj, states = SoftmaxObjective(X, y, l2=1e-5), []
    last = minimize.minimize(
        obj.problem, tol=1e-8, progress=lambda iterate: states.append(copy.copy(iterate.state))
    )
    assert states[3].preconditioner_at is None
    assert states[4].preconditioner_at is states[3].x
    assert states[9].preconditioner_at is states[3].x
    assert states[10].preconditioner_at is states[9].x
    assert last.state.norms[-1] <= 1e-8
    resumed = minimize.minimize(obj.problem, tol=1e-8, state=copy.copy(states[17]))
    assert np.array_equal(resumed.state.x, last.state.x)
    monkeypatch.setattr(solvers, "_RENEWAL", 10**6)
    assert minimize.minimize(obj.problem, tol=1e-8).passes > last.passes


@pytest.mark.parametrize("C", [1.0, 100.0, 1e4, 1e6])
def test_many_classes_that_separate(C):
    rng = np.random.default_rng(1)
    X, W = rng.standard_normal((2000, 30)), rng.standard_normal((100, 30))
    y = (X @ W.T * 3 + rng.gumbel(size=(2000, 100))).argmax(axis=1)
    obj = SoftmaxObjective(X, y, n_classes=100, l2=1 / (2 * C * len(X)))
    ours = minimize.minimize(obj.problem, tol=1e-4)
    best = minimize.minimize(obj.problem, tol=1e-9, max_iter=10_000)
    assert ours.state.loss <= 1.1 * best.state.loss + 1e-4
    assert ours.passes < 300


def test_a_run_goes_on_with_another_penalty_without_an_evaluation():
    X, y = noisy_problem(np.float64, 3000, 8, 4)
    problems = [SoftmaxObjective(X, y, l2=l2).problem for l2 in (1e-1, 1e-3)]
    last = minimize.minimize(problems[0], tol=1e-6)
    state = minimize.carried_over(last, problems[1].l2)
    centred = CentredProblem(problems[1], last.centred.sample)
    loss, gradient = centred(state.x)
    np.testing.assert_allclose(state.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(state.gradient, gradient, atol=1e-12)
    for s, y_, curvature in zip(state.steps, state.changes, state.curvatures, strict=True):
        np.testing.assert_allclose(curvature, s @ y_)
        assert curvature > 0
    fresh = minimize.minimize(problems[1], tol=1e-6, start=last.parameters)
    sample = last.centred.sample
    carried = minimize.minimize(problems[1], tol=1e-6, state=state, sample=sample)
    np.testing.assert_allclose(carried.parameters[0], fresh.parameters[0], atol=1e-3)
    assert carried.passes < fresh.passes


@pytest.mark.parametrize("separable", [False, True])
def test_a_small_change_of_the_penalty_takes_no_pass_and_a_large_one_does(separable):
    X, y = noisy_problem(np.float64, 3000, 8, 4)
    y = X[:, :4].argmax(axis=1) if separable else y
    problem = SoftmaxObjective(X, y, l2=1e-6).problem
    last = minimize.minimize(problem, tol=1e-4)
    for factor, is_small in ((0.999, True), (0.5, not separable)):
        problem = SoftmaxObjective(X, y, l2=factor * 1e-6).problem
        state = minimize.carried_over(last, problem.l2)
        after = minimize.minimize(problem, tol=1e-4, state=state, sample=last.centred.sample)
        assert (after.passes == 0) == is_small


def test_a_tol_that_rounding_keeps_out_of_reach_ends_the_run():
    X, y = noisy_problem(np.float32, 500, 5, 3)
    for solver in minimize.SOLVERS:
        problem = SoftmaxObjective(X, y, l2=1e-3).problem
        last = minimize.minimize(problem, tol=1e-20, solver=solver, max_iter=5000)
        assert last.state.n_iter < 500
        assert last.state.message == solvers.EXHAUSTED


@pytest.mark.parametrize("shift", [0.0, 1e-5, 10.0])
def test_a_run_goes_on_from_a_point_that_is_expected_to_be_close(shift):
    """A better point is gone on from, and a worse one costs an evaluation."""
    X, y = noisy_problem(np.float64, 3000, 8, 4)
    problems = [SoftmaxObjective(X, y, l2=l2).problem for l2 in (1e-1, 1e-2)]
    last = minimize.minimize(problems[0], tol=1e-6)
    best = minimize.minimize(problems[1], tol=1e-8)
    W, b = best.parameters
    sample, state = last.centred.sample, minimize.carried_over(last, problems[1].l2)
    started = {"tol": 1e-4, "sample": sample, "state": state}
    carried = minimize.minimize(problems[1], **started)
    state = minimize.carried_over(last, problems[1].l2)
    found = minimize.minimize(problems[1], **started | {"state": state, "start": (W + shift, b)})
    found_far = minimize.minimize(
        problems[1], **started | {"state": state, "start": (W * (1 + shift), b)}
    )
    assert found.state.n_iter == 0  # a shift common to all classes changes nothing
    np.testing.assert_allclose(found_far.state.loss, best.state.loss, rtol=1e-5)
    if shift < 1:
        assert found_far.passes == 1
    else:
        assert found_far.passes == carried.passes + 1
