"""LogisticRegression against scikit-learn's; its own tests run in test_scikit_learn_suite.py."""

import pickle
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
from fastsoftmax.linear_model import LogisticRegression, LogisticRegressionCV, SoftmaxRegression


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([LogisticRegression()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


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


HANDED_OVER = [
    {"solver": "liblinear"},
    {"solver": "liblinear", "dual": True},
    {"solver": "liblinear", "l1_ratio": 1.0},
    {"solver": "saga", "l1_ratio": 1.0},
    {"solver": "saga", "l1_ratio": 0.5},
]


@pytest.mark.parametrize("options", HANDED_OVER, ids=str)
def test_what_does_not_run_here_is_scikit_learns(options, capsys):
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    options = {**options, "random_state": 0, "max_iter": 1000, "tol": 1e-3}
    ours = LogisticRegression(**options).fit(X, y)
    assert capsys.readouterr().out == ""
    theirs = linear_model.LogisticRegression(**options).fit(X, y)
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
    np.testing.assert_array_equal(ours.n_iter_, theirs.n_iter_)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-12)
    clone(ours).set_params(verbose=1).fit(X, y)
    assert capsys.readouterr().out.count("fitted by scikit-learn") == 1


@pytest.mark.parametrize(
    "options", [{"solver": "sag"}, {"solver": "saga"}, {"l1_ratio": 0}], ids=str
)
@pytest.mark.parametrize("C", [0.5, np.inf])
@pytest.mark.filterwarnings("ignore:Setting penalty=None")  # scikit-learn 1.8 says it of C = inf
def test_other_names_of_the_same_optimum_run_here(options, C, monkeypatch):
    def unexpected(*args, **kwargs):
        raise AssertionError("scikit-learn was to fit")

    X, y = load_iris(return_X_y=True)
    X, y = X[:, :2], y > 0.5
    y[::7] ^= True  # without noise there is no optimum without a penalty
    best = LogisticRegression(C=C, tol=1e-9).fit(X, y)
    bare = LogisticRegression(C=C, tol=1e-9, fit_intercept=False, **options).fit(X, y)
    assert not bare.intercept_.any()
    if C < np.inf:  # otherwise scikit-learn is asked for its warnings
        monkeypatch.setattr(linear_model.LogisticRegression, "fit", unexpected)
    model = LogisticRegression(C=C, tol=1e-9, **options).fit(X, y)
    np.testing.assert_allclose(model.coef_, best.coef_, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "lbfgs", "l1_ratio": 1},
        {"solver": "newton-cg", "dual": True},
        {"solver": "nonsense"},
        {"solver": ["lbfgs"]},
        {"C": -1.0},
        {"C": np.ones(2)},
        {"l1_ratio": 2.0},
        {"l1_ratio": np.ones(2)},
        {"penalty": "l3"},
        {"tol": "small"},
        {"class_weight": "heavy"},
        {"solver": "liblinear"},  # with three classes
        {"solver": "liblinear", "C": np.inf},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_scikit_learn_refuses_gets_its_error(options):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(Exception) as theirs:  # noqa: B017, PT011
        linear_model.LogisticRegression(**options).fit(X, y)
    with pytest.raises(type(theirs.value)) as ours:
        LogisticRegression(**options).fit(X, y)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "options",
    [
        {"penalty": "l2"},
        {"penalty": None},
        {"penalty": None, "C": 3.0},
        {"penalty": "l2", "l1_ratio": 0.5},
        {"penalty": "elasticnet", "l1_ratio": 0, "solver": "saga"},
        {"l1_ratio": None},
        {"l1_ratio": 0.5, "C": np.inf},
        {"n_jobs": 2},
        {"C": np.inf},
    ],
    ids=str,
)
def test_warnings_are_scikit_learns(options):
    X, y = load_iris(return_X_y=True)
    found = []
    for make in (LogisticRegression, linear_model.LogisticRegression):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make(max_iter=5000, **options).fit(X[:, :2], y)
        kept = [w for w in caught if w.category is not ConvergenceWarning]
        found.append({(w.category, str(w.message)) for w in kept})
    assert found[0] == found[1]


def test_a_fit_leaves_no_trace_of_the_one_before():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, :5]
    model = LogisticRegression(solver="liblinear", random_state=0).fit(X, y)
    for options, labels, rows in [
        ({"solver": "lbfgs", "max_iter": 1000}, y, X),
        ({"solver": "saga", "l1_ratio": 1.0, "tol": 0.1, "random_state": 0}, y, X.to_numpy()),
        ({"solver": "lbfgs", "l1_ratio": 0.0, "tol": 1e-3}, y + (X.iloc[:, 0] > 15), X.to_numpy()),
    ]:
        model.set_params(**options).fit(rows, labels)
        fresh = clone(model).fit(rows, labels)
        assert vars(model).keys() == vars(fresh).keys()
        for name, value in vars(fresh).items():
            np.testing.assert_array_equal(getattr(model, name), value)
            assert np.shape(getattr(model, name)) == np.shape(value)


def test_a_sparsified_model_goes_on():
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(warm_start=True, tol=1e-6).fit(X, y).sparsify()
    assert model.fit(X, y).n_iter_[0] <= 1


def test_a_tol_that_cannot_be_reached_ends():
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(solver="sag", tol=0.0, max_iter=10_000).fit(X, y)
    assert model.n_iter_[0] < 500


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
        model = LogisticRegression(warm_start=True, tol=1e-8).fit(X, labels)
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


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dtype, factor", [(np.float32, 2.0**100), (np.float64, 2.0**900)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_c_is_relative_to_huge_weights_as_well(dtype, factor, n_classes):
    X, y = load_iris(return_X_y=True)
    X, y = X.astype(dtype), np.minimum(y, n_classes - 1)
    s = np.random.default_rng(0).uniform(0.5, 2, len(y)).astype(dtype)
    for model in (LogisticRegression(C=1e-2), LogisticRegressionCV(Cs=[1e-2, 0.1], cv=3)):
        name = "Cs" if hasattr(model, "Cs") else "C"
        usual = clone(model).fit(X, y, s)
        scaled = np.asarray(getattr(model, name)) / factor
        model.set_params(**{name: scaled if scaled.ndim else float(scaled)})
        huge = model.fit(X, y, s * dtype(factor))
        assert np.array_equal(huge.coef_, usual.coef_)
