"""LogisticRegressionCV against scikit-learn's; its own tests run in test_scikit_learn_suite.py."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn import linear_model
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.extmath import softmax

from fastsoftmax._evaluation.problem import Problem
from fastsoftmax.linear_model import LogisticRegression, LogisticRegressionCV
from fastsoftmax.linear_model._cv_scores import FoldScorer

# With scikit-learn 1.8 some of its own results are errors.
IS_OLD = tuple(int(n) for n in sklearn.__version__.split(".")[:2]) < (1, 9)
QUIET = {"l1_ratios": (0,), "scoring": "neg_log_loss", "use_legacy_attributes": False}


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.SkipTestWarning",
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore:The least populated class in y:UserWarning",
)
@parametrize_with_checks(
    [LogisticRegressionCV(Cs=[0.1, 1.0], cv=3, tol=1e-8, max_iter=1000, **QUIET)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def noisy(n_classes, n_rows=300, dtype=np.float64):
    rng = np.random.default_rng(n_classes)
    X = rng.standard_normal((n_rows, 5)) * [1, 2, 0.5, 1, 3] + [0, 0, 1, -1, 10]
    logits = (X - X.mean(axis=0)) @ rng.standard_normal((5, n_classes))
    return X.astype(dtype), (logits + 2 * rng.gumbel(size=logits.shape)).argmax(axis=1)


def both(X, y, fit_options=None, **options):
    """Fit both, to their optima."""
    options = {"Cs": [1e-3, 10.0, 0.1], "cv": 3, "tol": 1e-8, "max_iter": 3000, **QUIET, **options}
    found = []
    for make in (LogisticRegressionCV, linear_model.LogisticRegressionCV):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(make(**options).fit(X, y, **(fit_options or {})))
    return found


def assert_same(ours, theirs, tol=1e-4, but=()):
    """All attributes: the same names, types, shapes and dtypes, and nearly the same values."""
    assert vars(ours).keys() == vars(theirs).keys()
    for name in [name for name in vars(theirs) if name.endswith("_")]:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert type(a) is type(b), name
        pairs = [(a, b)]
        if isinstance(b, dict):
            assert list(a) == list(b)
            pairs = [(a[key], b[key]) for key in b]
        for x, z in pairs:
            assert np.shape(x) == np.shape(z), name
            assert np.asarray(x).dtype == np.asarray(z).dtype, name
            if name not in ("n_iter_", *but) and np.asarray(z).dtype.kind == "f":
                np.testing.assert_allclose(x, z, rtol=tol, atol=tol, err_msg=name)
            elif name not in ("n_iter_", *but):
                np.testing.assert_array_equal(x, z, err_msg=name)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_same_attributes(n_classes, legacy, refit, fit_intercept):
    if IS_OLD and not refit:
        pytest.skip("scikit-learn 1.8 had None for l1_ratio_")
    X, y = noisy(n_classes)
    options = {"use_legacy_attributes": legacy, "refit": refit, "fit_intercept": fit_intercept}
    for l1_ratios in ((0,), None, [0, 0.0]):
        assert_same(*both(X, y, **options, l1_ratios=l1_ratios))


@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky", "saga"])
def test_same_attributes_whatever_the_solver_is_called(solver):
    X, y = noisy(3)
    theirs = linear_model.LogisticRegressionCV(Cs=3, cv=3, tol=1e-8, max_iter=3000, **QUIET)
    ours = LogisticRegressionCV(Cs=3, cv=3, tol=1e-8, solver=solver, **QUIET).fit(X, y)
    theirs.set_params(solver="newton-cholesky").fit(X, y)
    np.testing.assert_allclose(ours.coefs_paths_, theirs.coefs_paths_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.scores_, theirs.scores_, rtol=1e-4)


@pytest.mark.parametrize(
    "scoring", [None, "accuracy", "roc_auc_ovr", "neg_brier_score", "f1_macro"]
)
def test_scorings(scoring):
    X, y = noisy(3)
    assert_same(*both(X, np.array(["a", "c", "b"])[y], scoring=scoring))


@pytest.mark.parametrize("cv", [KFold(4, shuffle=True, random_state=0), KFold(3), "masks", "again"])
def test_folds(cv):
    X, y = noisy(3)
    every = np.arange(len(y))
    if cv == "masks":
        cv = [(every % 3 != i, every % 3 == i) for i in range(2)]
    elif cv == "again":  # rows that come more than once, and some that never come
        cv = [(np.r_[0:100, 0:50, 30], np.r_[200:300]), (np.r_[-100:0], np.r_[0:100:2])]
    assert_same(*both(X, y, cv=cv))


@pytest.mark.skipif(IS_OLD, reason="scikit-learn 1.8 did not tell scorers of all labels")
def test_a_class_that_a_fold_lacks():
    X, y = noisy(3)
    cv = [(np.flatnonzero(y != 2), np.flatnonzero(y == 2)), (np.arange(200), np.arange(200, 300))]
    ours, theirs = both(X, y, cv=cv, tol=1e-5, Cs=[1e-2, 1.0])
    assert_same(ours, theirs, but=("coefs_paths_", "scores_", "coef_", "intercept_"))
    # The intercept of the class that is missing goes on falling.
    coef, expected = (m.coefs_paths_[..., :-1] for m in (ours, theirs))
    np.testing.assert_allclose(coef, expected, atol=1e-2)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 3.0, 2: 0.5}])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights(class_weight, weighted):
    X, y = noisy(3)
    s = np.random.default_rng(0).integers(0, 4, len(y)) if weighted else None
    assert_same(*both(X, y, {"sample_weight": s}, class_weight=class_weight))


def test_log_loss_of_hopeless_rows_is_limited_as_scikit_learns():
    X, y = noisy(3)
    X[:40] *= 1e3
    ours, theirs = both(X, y, Cs=[1.0], tol=1e-6)
    np.testing.assert_allclose(ours.scores_, theirs.scores_, rtol=1e-3)
    path = 1e3 * theirs.coefs_paths_[0, 0]
    found = FoldScorer("neg_log_loss", X, y, y, np.arange(3), None, {}).scores(y < 9, [1.0], path)
    logits = X @ path[0, :, :-1].T + path[0, :, -1]
    assert found[0] == pytest.approx(-log_loss(y, softmax(logits)), rel=1e-9)
    assert np.log(softmax(logits).min() + 1e-300) < -40


@pytest.mark.parametrize("kept", [slice(100), slice(100, None)])
def test_folds_without_a_weight(kept):
    X, y = noisy(3)
    s = np.zeros(len(y))
    s[kept] = 1
    with pytest.raises(ValueError, match="cv: expected folds whose rows .*have a weight, got one"):
        LogisticRegressionCV(**QUIET, Cs=[1.0], cv=KFold(3)).fit(X, y, s)


@pytest.mark.parametrize("scoring", [None, "accuracy", "requested", "not requested"])
def test_weights_count_in_scores_as_routing_says(scoring):
    X, y = noisy(2)
    s = np.random.default_rng(0).uniform(0, 9, len(y))
    routing = scoring in ("requested", "not requested")
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            wanted = scoring == "requested"
            scoring = get_scorer("accuracy").set_score_request(sample_weight=wanted)
        assert_same(*both(X, y, {"sample_weight": s}, scoring=scoring))


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_sparse(container):
    X, y = noisy(3)
    assert_same(*both(container(np.where(np.abs(X) < 1, 0, X)), y))


def test_float32_and_layouts():
    X, y = noisy(3, dtype=np.float32)
    ours, theirs = both(X, y, tol=1e-5)
    assert_same(ours, theirs, tol=1e-2)
    again = clone(ours).fit(np.asfortranarray(X), y)
    np.testing.assert_allclose(again.scores_, ours.scores_, rtol=1e-6)
    assert ours.predict(X).dtype == theirs.predict(X).dtype
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-2)


def test_rows_left_out_are_not_read(monkeypatch):
    """Long runs of them: their number does not matter, and no X is copied for a fold."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30_000, 3)), rng.integers(0, 3, 30_000)
    seen = []
    sums = Problem.evaluate

    def evaluate(self, *args):
        chunks = [chunk.X for chunk in self.data.chunks(1)]
        assert all(np.shares_memory(chunk, X) for chunk in chunks)
        seen.append(sum(len(chunk) for chunk in chunks))
        return sums(self, *args)

    monkeypatch.setattr(Problem, "evaluate", evaluate)
    LogisticRegressionCV(Cs=2, cv=KFold(3), **QUIET).fit(X, y)
    assert set(seen) == {20_000, 30_000}
    expected = linear_model.LogisticRegressionCV(Cs=2, cv=KFold(3), **QUIET).fit(X, y)
    ours = LogisticRegressionCV(Cs=2, cv=KFold(3), **QUIET).fit(X, y)
    np.testing.assert_allclose(ours.scores_, expected.scores_, rtol=1e-5)


def test_a_path_takes_few_passes(monkeypatch):
    """A fit goes on from the one before without an evaluation, and where nothing is left of it."""
    X, y = noisy(3, 3000)
    calls = []
    evaluate = Problem.evaluate
    monkeypatch.setattr(Problem, "evaluate", lambda *args: calls.append(1) or evaluate(*args))
    model = LogisticRegressionCV(Cs=10, cv=StratifiedKFold(5), **QUIET).fit(scale(X), y)
    n_fits = model.n_iter_.size
    assert model.n_iter_.min() == 0
    assert len(calls) <= 4 * n_fits
    alone = len(calls)
    calls.clear()
    for C in model.Cs_:
        LogisticRegression(C=C).fit(scale(X), y)
    assert alone < 3 * len(calls)


@pytest.mark.parametrize(
    "options",
    [
        {"l1_ratios": (0.5, 1), "solver": "saga", "tol": 0.1},
        {"l1_ratios": (1,), "solver": "liblinear"},
        {"solver": "liblinear", "dual": True},
    ],
    ids=str,
)
def test_what_does_not_run_here_is_scikit_learns(options, capsys):
    X, y = load_breast_cancer(return_X_y=True)
    options = {**QUIET, "Cs": [0.1, 1.0], "cv": 2, "random_state": 0, **options}
    ours = LogisticRegressionCV(**options).fit(scale(X), y)
    theirs = linear_model.LogisticRegressionCV(**options).fit(scale(X), y)
    assert_same(ours, theirs, tol=1e-12)
    assert capsys.readouterr().out == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clone(ours).set_params(verbose=1).fit(scale(X), y)
    assert capsys.readouterr().out.count("fitted by scikit-learn") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "nonsense"},
        {"Cs": 0},
        {"Cs": "many"},
        {"cv": "five"},
        {"scoring": "beauty"},
        {"l1_ratios": (1,)},
        {"l1_ratios": (2, 0), "solver": "saga"},
        {"dual": True},
        {"penalty": "elasticnet", "l1_ratios": None, "solver": "saga"},
        {"penalty": None},
        {"class_weight": {7: 1.0}},
        {"solver": "liblinear"},  # with three classes
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_scikit_learn_refuses_gets_its_error(options):
    X, y = load_iris(return_X_y=True)
    options = {**QUIET, **options}
    with pytest.raises(Exception) as theirs:  # noqa: B017, PT011
        linear_model.LogisticRegressionCV(**options).fit(X, y)
    with pytest.raises(type(theirs.value)) as ours:
        LogisticRegressionCV(**options).fit(X, y)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("Cs", [[0.0, 1.0], [-1.0], [np.nan], [[1.0]]])
def test_values_of_C_that_make_no_sense(Cs):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="Cs: expected a positive integer or positive numbers"):
        LogisticRegressionCV(Cs=Cs, **QUIET).fit(X, y)


def test_warnings_are_scikit_learns():
    X, y = noisy(3)
    for options in ({}, {"penalty": "l2"}, {"l1_ratios": None, "scoring": None}):
        found = []
        for make in (LogisticRegressionCV, linear_model.LogisticRegressionCV):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                make(Cs=2, cv=2, max_iter=1000, **options).fit(X, y)
            kept = [w for w in caught if w.category is not ConvergenceWarning]
            found.append({(w.category, str(w.message)) for w in kept})
        assert found[0] == found[1]
        assert found[0]


def test_it_warns_where_iterations_are_too_few():
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge") as caught:
        LogisticRegressionCV(Cs=[1.0], cv=3, max_iter=1, tol=1e-9, **QUIET).fit(X, y)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_fit_leaves_no_trace_of_the_one_before():
    X, y = load_iris(return_X_y=True, as_frame=True)
    X = scale(X)
    model = LogisticRegressionCV(Cs=2, cv=2, **{**QUIET, "use_legacy_attributes": True}).fit(X, y)
    elastic = {"l1_ratios": (0.5, 1), "solver": "saga", "tol": 0.1, "random_state": 0}
    for options, labels in [
        ({"use_legacy_attributes": False}, y),
        (elastic, y),
        ({"l1_ratios": (0,), "solver": "lbfgs", "tol": 1e-4}, y > 0),
    ]:
        model.set_params(**options).fit(X, labels)
        fresh = clone(model).fit(X, labels)
        assert vars(model).keys() == vars(fresh).keys()
        assert_same(model, fresh, tol=0)


def test_verbose_prints_a_line_for_every_fold_and_C(capsys):
    X, y = load_iris(return_X_y=True)
    LogisticRegressionCV(Cs=[0.1, 1.0], cv=3, verbose=1, **QUIET).fit(scale(X), y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[3].startswith("fold 2, C = 1: ")


def test_interruptions_and_pickles(monkeypatch):
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=3, cv=3, **QUIET)).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))

    def interrupted(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Problem, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
