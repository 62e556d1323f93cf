"""train --compare: scikit-learn is timed on the same problem, to the same loss."""

import re

import numpy as np
import pytest

from fastsoftmax.cli import _compare
from fastsoftmax.linear_model import SoftmaxRegression
from fastsoftmax.sources import ArraySource

FIT = re.compile(
    r"(\S+) in (float\d+): (\S+) s, (\S+) iterations, loss (\S+), accuracy on held-out rows (\S+)"
)
TRAIN = ["train", "iris.csv", "--target", "species", "--l2", "0.1", "--tol", "1e-6"]


@pytest.fixture
def compared(iris, command, monkeypatch):
    """Run train --compare; return what it printed, and the two fits' numbers by library."""

    def run(*options):
        monkeypatch.setenv("COLUMNS", "300")
        code, output, errors = command(*TRAIN, "--compare", *options)
        assert (code, errors) == (0, "")
        fits = {name: (dtype, *map(float, rest)) for name, dtype, *rest in FIT.findall(output)}
        assert list(fits) == ["fastsoftmax", "scikit-learn"]
        return output, fits

    return run


def test_the_same_loss_is_reached(compared):
    output, fits = compared()
    assert "times as long to come within 0.1% of fastsoftmax's loss" in output
    assert "on 120 training rows" in output
    (dtype, seconds, iterations, loss, accuracy), ours = fits["scikit-learn"], fits["fastsoftmax"]
    assert seconds > 0
    assert 8 <= iterations <= 1000
    assert ours[3] - 1e-6 <= loss <= ours[3] * 1.001 + 1e-6
    assert accuracy == pytest.approx(ours[4], abs=0.05)
    assert ours[0] == "float32"
    assert dtype in ("float32", "float64")  # which it computes in depends on the release


def test_a_loss_that_is_not_reached(compared, monkeypatch):
    monkeypatch.setattr(_compare, "_ITERATIONS", [1, 2])
    output, fits = compared()
    assert "scikit-learn's LogisticRegression ended before it came within 0.1%" in output
    assert fits["scikit-learn"][2] == 2


def test_a_sample_of_rows_is_said_to_be_one(compared, monkeypatch):
    monkeypatch.setattr(_compare, "_TRIAL_ROWS", 30)
    monkeypatch.setattr(_compare, "_fit", slow := SlowFits(_compare._fit))
    output, _ = compared()
    assert "on a sample of 60 of 120 training rows" in output
    assert slow.n_rows == [30, 30, 60, *[60] * (len(slow.n_rows) - 3)]


class SlowFits:
    """Fits that take a hundredth of what is too long for as many iterations on a row."""

    def __init__(self, fit):
        self.fit, self.n_rows = fit, []

    def __call__(self, estimator, model, rows):
        self.n_rows.append(rows.n_rows)
        loss, _ = self.fit(estimator, model, rows)
        return loss, 1.5 * _compare._SECONDS * rows.n_rows / 120 * 5 / 500


def test_a_stream_larger_than_the_memory_allowed(compared, monkeypatch):
    monkeypatch.setattr(_compare, "_MEMORY_BYTES", 120 * 4 * 8 // 3)
    output, _ = compared("--stream")
    assert re.search(r"on a sample of (\d+) of 1\d\d training rows", output)


@pytest.mark.filterwarnings("ignore:Setting penalty=None")  # scikit-learn 1.8 does so itself
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("l2", "fit_intercept"), [(0.0, True), (1e-2, True), (1e-2, False)])
def test_both_libraries_minimise_the_objective_of_train(n_classes, l2, fit_intercept):
    rng = np.random.default_rng(0)
    rows = ArraySource("rows", rng.standard_normal((200, 4)), rng.integers(0, n_classes, 200))
    model = SoftmaxRegression(l2, fit_intercept=fit_intercept, tol=1e-8).fit(rows.X, rows.y)
    for library in (_compare, _compare.sklearn.linear_model):
        estimator = library.LogisticRegression(tol=1e-8, max_iter=1000)
        loss, _ = _compare._fit(estimator, model, rows)
        assert loss == pytest.approx(model.loss_, rel=1e-10)
