"""The sums behind tables and pictures, beside scikit-learn's functions on all rows at once."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from fastsoftmax.cli._scores import Score


def draws(n_classes, n_rows=3000, others=0):
    """Log-probabilities and true classes; the last of the rows have labels that are no class."""
    rng = np.random.default_rng(n_classes)
    p = rng.dirichlet(np.full(n_classes, 0.3), n_rows)
    truth = (p.cumsum(axis=1) < rng.random((n_rows, 1))).sum(axis=1).clip(max=n_classes - 1)
    truth[n_rows - others :] = -1
    with np.errstate(divide="ignore"):
        return np.log(p), truth


def scored(log_p, truth, chunk=700):
    result = Score(np.arange(log_p.shape[1]))
    for start in range(0, len(truth), chunk):
        result.add(log_p[start : start + chunk], truth[start : start + chunk])
    return result


@pytest.mark.parametrize("others", [0, 40])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 100])
def test_measures_are_scikit_learns(n_classes, others):
    log_p, truth = draws(n_classes, others=others)
    result, predicted = scored(log_p, truth), log_p.argmax(axis=1)
    labels = range(n_classes)
    assert result.n_rows == len(truth)
    assert result.accuracy == accuracy_score(truth, predicted)
    want = confusion_matrix(truth, predicted, labels=[*labels, -1])
    np.testing.assert_array_equal(result.confusion, want[:, :-1])
    measures = precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=np.nan
    )
    for got, want in zip(
        (result.precision, result.recall, result.f1, result.rows), measures, strict=True
    ):
        np.testing.assert_allclose(got, want)
    is_hit, p = predicted == truth, np.exp(log_p.max(axis=1))
    if n_classes == 2:
        is_hit, p = truth == 1, np.exp(log_p[:, 1])
    observed, mean = calibration_curve(is_hit, p, n_bins=10)
    got = result.calibration()
    np.testing.assert_allclose(got[0], mean)
    np.testing.assert_allclose(got[1], observed)
    assert got[2].sum() == pytest.approx(1)
    if others:
        assert result.log_loss == np.inf
    else:
        p = np.exp(log_p)
        assert result.log_loss == pytest.approx(log_loss(truth, p, labels=labels), rel=1e-9)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_probabilities_at_the_ends_of_bins(p):
    with np.errstate(divide="ignore"):
        log_p = np.log([[1 - p, p]])
    predicted, observed, share = scored(log_p, np.array([1])).calibration()
    assert (predicted[0], observed[0], share[0]) == (pytest.approx(p), 1, 1)


def test_classes_that_never_occur_or_are_never_predicted():
    log_p = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    result = scored(log_p, np.array([0, 1]))
    np.testing.assert_array_equal(result.recall, [1, 0, np.nan])
    np.testing.assert_array_equal(result.precision, [0.5, np.nan, np.nan])
    np.testing.assert_allclose(result.f1, [2 / 3, 0, np.nan])
    assert result.weakest(3).tolist() == [1, 0, 2]


def test_of_equally_weak_classes_the_largest_comes_first():
    log_p = np.log(np.full((4, 4), 0.1) + 0.6 * np.eye(4)[0])
    result = scored(log_p, np.array([1, 2, 2, 3]))
    assert result.weakest(4).tolist() == [2, 1, 3, 0]


def test_neighbours_are_counted_together_where_there_are_very_many():
    n_classes = 2500
    log_p, truth = draws(n_classes, 400, others=3)
    result = scored(log_p, truth)
    assert (result.group_size, result.confusion.shape) == (3, (835, 834))
    groups = np.where(truth < 0, 834, truth // 3)
    want = confusion_matrix(groups, log_p.argmax(axis=1) // 3, labels=range(835))
    np.testing.assert_array_equal(result.confusion, want[:, :834])
    assert result.rows.shape == (n_classes,)
