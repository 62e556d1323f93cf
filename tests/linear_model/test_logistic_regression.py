"""LogisticRegression against scikit-learn's, and by its own test suite."""

import os
import pathlib
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn import linear_model
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsoftmax import SoftmaxObjective
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._optimize import minimize
from fastsoftmax.linear_model import LogisticRegression, SoftmaxRegression


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([LogisticRegression()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_scikit_learns_own_tests():
    """Those with CV in their name run LogisticRegressionCV, which is not ours."""
    here = pathlib.Path(__file__).parent.parent / "helpers"
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "--pyargs", "-p", "sklearn_suite",
            "-p", "no:cacheprovider", "-c", os.devnull, "-k", "not CV and not cv",
            "sklearn.linear_model.tests.test_logistic",
        ],
        cwd=here, env={**os.environ, "PYTHONPATH": str(here)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "newton-cholesky"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_same_optimum(solver, binary, fit_intercept, class_weight):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    y = np.array(["no", "yes"])[(y == 1).astype(int)] if binary else y
    s = np.random.default_rng(0).uniform(0.5, 2, len(y))
    options = {"C": 2.0, "fit_intercept": fit_intercept, "class_weight": class_weight, "tol": 1e-9}
    ours = LogisticRegression(solver=solver, max_iter=500, **options).fit(X, y, s)
    theirs = linear_model.LogisticRegression(
        solver="newton-cholesky", max_iter=500, **{**options, "tol": 1e-12}
    ).fit(X, y, s)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    assert (ours.predict(X) == theirs.predict(X)).all()


def test_sparse_equals_dense():
    X, y = load_breast_cancer(return_X_y=True)
    X = np.where(np.abs(X) < 0.05, 0, X)
    options = {"tol": 1e-8, "max_iter": 2000}
    dense = LogisticRegression(**options).fit(X, y)
    for container in (sparse.csr_matrix, sparse.csr_array, sparse.csc_array):
        model = LogisticRegression(**options).fit(container(X), y)
        np.testing.assert_allclose(model.coef_, dense.coef_, atol=1e-4 * np.abs(dense.coef_).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "saga"}, "supports the solvers .*got solver='saga'"),
        ({"solver": "liblinear"}, "supports the solvers .*got solver='liblinear'"),
        ({"l1_ratio": 0.5}, "only 'l2' or None penalties.*sklearn.linear_model"),
        ({"dual": True}, "dual=False"),
    ],
)
@pytest.mark.skipif(
    tuple(int(n) for n in sklearn.__version__.split(".")[:2]) < (1, 8),
    reason="l1_ratio meant something else before scikit-learn 1.8",
)
def test_what_is_not_here_says_so(options, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        LogisticRegression(**options).fit(X, y)


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize("make", [LogisticRegression, SoftmaxRegression])
def test_pipelines_searches_and_calibration(make, backend):
    import joblib

    X, y = load_breast_cancer(return_X_y=True)
    grid = {"logisticregression__C": [0.1, 1.0]}
    if make is SoftmaxRegression:
        grid = {"softmaxregression__l2": [1e-3, 1e-1]}
    search = GridSearchCV(make_pipeline(StandardScaler(), make()), grid, cv=3, n_jobs=2)
    with joblib.parallel_backend(backend), warnings.catch_warnings():
        # A worker may outlive this test; how joblib reports it is not ours.
        warnings.simplefilter("ignore", UserWarning)
        search.fit(X, y)
    assert search.best_score_ > 0.95
    calibrated = CalibratedClassifierCV(search.best_estimator_, cv=3).fit(X, y)
    assert calibrated.score(X, y) > 0.95
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict_proba(X), search.best_estimator_.predict_proba(X))


def test_metadata_routing_of_weights():
    X, y = load_iris(return_X_y=True)
    s = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression(tol=1e-8).set_fit_request(sample_weight=True)
        routed = make_pipeline(model).fit(X, y, sample_weight=s)
    alone = clone(model).fit(X, y, sample_weight=s)
    np.testing.assert_array_equal(routed[-1].coef_, alone.coef_)


@pytest.mark.parametrize("make", [LogisticRegression, SoftmaxRegression])
def test_interrupted_fits_are_usable(make, monkeypatch):
    X, y = load_iris(return_X_y=True)
    evaluate = Problem.evaluate
    calls = []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(self, *args)

    monkeypatch.setattr(Problem, "evaluate", interrupted)
    model = make()
    with pytest.raises(KeyboardInterrupt), pytest.warns(ConvergenceWarning, match="interrupted"):
        model.fit(X, y)
    assert model.score(X, y) > 0.5


def test_warm_start_from_the_optimum_has_nothing_to_do():
    X, y = load_iris(return_X_y=True)
    for labels in (y, y == 0):
        model = LogisticRegression(warm_start=True, tol=1e-6).fit(X, labels)
        before = model.coef_.copy()
        model.fit(X, labels)
        assert model.n_iter_[0] <= 1
        np.testing.assert_allclose(model.coef_, before, atol=1e-5)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({0: 0, 1: 0}, "a mean needs at least one row"),
        ({0: -1, 1: 1}, "class_weight: expected fin"),
    ],
)
def test_class_weights_that_weigh_nothing(class_weight, message):
    with pytest.raises(ValueError, match=message):
        LogisticRegression(class_weight=class_weight).fit(np.eye(4), [0, 1, 0, 1])


def words(n_rows, n_features, noise):
    """Unit rows of a bag of words, of some topics."""
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(n_features, 0.02), 4)
    y = rng.integers(0, 4, n_rows)
    counts = np.stack([rng.multinomial(30, (topics[k] + 1 / n_features) / 2) for k in y])
    y = np.where(rng.random(n_rows) < noise, rng.integers(0, 4, n_rows), y)
    return sparse.csr_array(counts / np.linalg.norm(counts, axis=1, keepdims=True)), y


@pytest.mark.parametrize("C", [1e-2, 1.0, 1e2, 1e3, 1e6])
@pytest.mark.parametrize("shape", [(300, 1000), (1500, 200)], ids=str)
@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_a_fit_ends_near_the_optimum_or_warns(C, shape, noise, solver):
    X, y = words(*shape, noise)
    objective = SoftmaxObjective(X, y, l2=0.5 / (C * len(y)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(C=C, solver=solver).fit(X, y)
    best = minimize.minimize(objective.problem, tol=1e-9, max_iter=3000).state.loss
    found = objective.value(objective.pack(model.coef_, model.intercept_))
    assert found <= 1.1 * best + 1e-4 or caught


def test_a_loss_that_cannot_be_lowered_is_a_warning():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 4)) * 1e25, rng.integers(0, 3, 200)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression().fit(X, y)
    objective = SoftmaxObjective(X, y, l2=0.5 / len(y))
    found = objective.value(objective.pack(model.coef_, model.intercept_))
    assert found < 1.1 or caught
