"""SoftmaxRegression against scikit-learn: its own checks, its optimum, and hard scales."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsoftmax import SoftmaxObjective
from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.linear_model._fitting import fit_prepared, prepare


def expected_failures(estimator):
    if estimator.fit_intercept:
        return {}
    reason = "without intercepts no weights make one class win everywhere, for any solver"
    return {"check_class_weight_classifiers": reason}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [
        SoftmaxRegression(),
        SoftmaxRegression(fit_intercept=False),
        SoftmaxRegression(solver="lbfgs"),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def gradient_at(model, X, y, **options):
    labels = np.searchsorted(model.classes_, y)
    obj = SoftmaxObjective(X.astype(np.float64), labels, l2=model.l2, **options)
    return obj(obj.pack(model.coef_, model.intercept_))[1]


def test_digits():
    X, y = load_digits(return_X_y=True)
    held_out = np.random.default_rng(0).random(len(X)) < 0.2
    model = SoftmaxRegression().fit(X[~held_out], y[~held_out])
    assert model.score(X[held_out], y[held_out]) > 0.95
    assert np.abs(gradient_at(model, X[~held_out], y[~held_out])).max() <= 1e-4


def test_same_optimum_as_scikit_learn():
    X, y = load_iris(return_X_y=True)
    l2 = 1e-2
    model = SoftmaxRegression(l2=l2, tol=1e-8, max_iter=10_000).fit(X, y)
    C = 1 / (2 * l2 * len(X))
    theirs = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(X, y)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-6)
    ours = model.intercept_ - model.intercept_.mean()
    np.testing.assert_allclose(ours, theirs.intercept_ - theirs.intercept_.mean(), atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wild_scales_and_offsets_do_not_matter(dtype):
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((4000, 6))
    y = (Z @ rng.standard_normal((6, 4)) + rng.gumbel(size=(4000, 4))).argmax(axis=1)
    X = (Z * np.logspace(-3, 3, 6) + np.array([1, -1, 30, 0, 1e4, 1e3])).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scaled = SoftmaxRegression(l2=0.0, tol=1e-5, max_iter=200).fit(X, y)
        plain = SoftmaxRegression(l2=0.0, tol=1e-5).fit(Z, y)
    assert scaled.coef_.dtype == scaled.intercept_.dtype == dtype
    assert scaled.n_iter_ < 200
    assert scaled.score(X, y) == pytest.approx(plain.score(Z, y), abs=2e-3)


def test_two_classes_and_log_probabilities():
    X, y = load_iris(return_X_y=True)
    X, y = X[y > 0], np.array(["b", "a"])[y[y > 0] - 1]
    model = SoftmaxRegression().fit(X, y)
    logits = X @ model.coef_.T + model.intercept_
    assert model.coef_.shape == (2, 4)
    np.testing.assert_allclose(model.decision_function(X), logits[:, 1] - logits[:, 0])
    far = X * 1e4
    log_proba = model.predict_log_proba(far)
    assert np.isfinite(log_proba).all()
    assert log_proba.min() < -1000
    np.testing.assert_allclose(np.exp(log_proba), model.predict_proba(far), atol=1e-12)
    assert list(model.classes_) == ["a", "b"]


def test_weights_count_like_repetition():
    X, y = load_iris(return_X_y=True)
    counts = np.random.default_rng(0).integers(0, 3, len(X))
    weighted = SoftmaxRegression(tol=1e-9).fit(X, y, sample_weight=counts)
    repeated = SoftmaxRegression(tol=1e-9).fit(X.repeat(counts, axis=0), y.repeat(counts))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)


def test_data_stay_untouched_in_any_layout():
    X, y = load_digits(return_X_y=True)
    X = np.asfortranarray(X.astype(np.float32))
    before = X.copy()
    model = SoftmaxRegression().fit(X, y)
    np.testing.assert_array_equal(X, before)
    plain = clone(model).fit(np.ascontiguousarray(X), y)
    np.testing.assert_array_equal(model.coef_, plain.coef_)


def test_warns_when_it_stops_early():
    X, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="stopped after 2 iterations.*increase max_iter"):
        SoftmaxRegression(max_iter=2, tol=1e-9).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"l2": -1}, ValueError, "l2: expected"),
        ({"tol": np.nan}, ValueError, "tol: expected"),
        ({"max_iter": 0}, ValueError, "max_iter: expected"),
        ({"max_iter": 1.5}, TypeError, "max_iter: expected an integer"),
    ],
)
def test_bad_parameters(parameters, error, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(error, match=message):
        SoftmaxRegression(**parameters).fit(X, y)


def test_one_class_is_an_error():
    with pytest.raises(ValueError, match="at least two classes"):
        SoftmaxRegression().fit([[1.0], [2.0]], ["a", "a"])


def test_progress_reports_every_iteration():
    X, y = load_iris(return_X_y=True)
    seen = []

    def note(last):
        seen.append((last.state.n_iter, last.state.loss, last.gradient_norm))

    model = SoftmaxRegression()
    fit_prepared(model, prepare(model, X, y), progress=note)
    assert [iteration for iteration, *_ in seen] == list(range(1, model.n_iter_ + 1))
    assert seen[-1][2] <= model.tol
    assert seen[-1][1] < seen[0][1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("warm_start", [False, True])
def test_features_that_are_not_finite_are_found_by_the_fit(bad, warm_start):
    rng = np.random.default_rng(0)
    X, y, weight = rng.standard_normal((300, 4)), rng.integers(0, 3, 300), np.ones(300)
    model = SoftmaxRegression(warm_start=warm_start).fit(X, y)
    coef = model.coef_
    X[7, 2], weight[7] = bad, 0
    for features in (X, X.astype(np.float32), sparse.csr_array(X)):
        with pytest.raises(ValueError, match="Input X contains"):
            model.fit(features, y + 1, sample_weight=weight)
    assert model.coef_ is coef
    assert model.classes_.tolist() == [0, 1, 2]


def test_labels_of_any_integer_kind():
    X = np.random.default_rng(0).standard_normal((60, 2))
    for y in (np.arange(60, dtype=np.int8) % 3 * 40 - 50, np.arange(60, dtype=np.uint64) % 2 << 63):
        model = SoftmaxRegression(tol=1e-2).fit(X, y)
        assert model.classes_.tolist() == np.unique(y).tolist()
        assert model.classes_.dtype == y.dtype
        assert set(model.predict(X)) <= set(y)
    with pytest.warns(UserWarning, match="unique classes"):
        SoftmaxRegression(tol=1.0).fit(X, np.arange(60))
