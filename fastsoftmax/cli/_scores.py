"""How well a classifier does on labelled rows: sums in one pass, for tables and pictures alike."""

import math
from typing import Any

import numpy as np

from fastsoftmax.reference import Array
from fastsoftmax.sources import ChunkSource
from fastsoftmax.sources._labels import match_labels

# Of more classes than this, neighbours are counted together in the confusion matrix.
_MOST_GROUPS = 1000
_BINS = 10  # of probabilities


class Score:
    """Sums over labelled rows, and the measures that follow from them.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The classes of the model.
    n_rows, n_correct : int
        Numbers of rows, and of rows whose class was predicted.
    rows, predicted, hits : ndarray of shape (n_classes,)
        How many rows are of each class, were predicted to be, and both.
    confusion : ndarray of shape (n_groups + 1, n_groups)
        How many rows of each group of classes were predicted to be of each; the last row is for
        those whose label is no class of the model. A group is ``group_size`` neighbouring classes:
        one, unless there are very many.
    """

    def __init__(self, classes: Array) -> None:
        n_classes = len(classes)
        self.classes, self.n_rows, self.n_correct = classes, 0, 0
        self.rows, self.predicted, self.hits = np.zeros((3, n_classes), np.int64)
        self.group_size = -(-n_classes // _MOST_GROUPS)
        n_groups = -(-n_classes // self.group_size)
        self.confusion = np.zeros((n_groups + 1, n_groups), np.int64)
        # Of each bin the rows, those that are of the class, and the sum of the probabilities.
        self._bins = np.zeros((3, _BINS))
        self._losses: list[float] = []

    def add(self, log_p: Array, truth: Array) -> None:
        """Take more rows into account: the log-probabilities, and the numbers of the true classes.

        The number is -1 where the label is none of the classes.
        """
        n_classes, n_groups = len(self.classes), self.confusion.shape[1]
        numbers, predicted = np.arange(len(truth)), log_p.argmax(axis=1)
        is_hit = predicted == truth
        self.n_rows += len(truth)
        self.n_correct += int(is_hit.sum())
        self.rows += np.bincount(truth + 1, minlength=n_classes + 1)[1:]
        self.predicted += np.bincount(predicted, minlength=n_classes)
        self.hits += np.bincount(predicted, is_hit, minlength=n_classes).astype(np.int64)
        groups = np.where(truth < 0, n_groups, truth // self.group_size)
        cells = groups * n_groups + predicted // self.group_size
        np.add.at(self.confusion.reshape(-1), cells, 1)
        of_truth = np.where(truth < 0, -np.inf, log_p[numbers, truth])
        self._losses.append(-float(of_truth.sum(dtype=np.float64)))
        if n_classes == 2:
            predicted, is_hit = np.ones_like(predicted), truth == 1
        p = np.exp(log_p[numbers, predicted], dtype=np.float64)
        bins = np.clip(np.ceil(p * _BINS) - 1, 0, _BINS - 1).astype(np.intp)
        for sums, weights in zip(self._bins, (None, is_hit, p), strict=True):
            sums += np.bincount(bins, weights, minlength=_BINS)

    @property
    def accuracy(self) -> float:
        """Share of the rows whose class was predicted."""
        return self.n_correct / self.n_rows

    @property
    def log_loss(self) -> float:
        """Mean of -log p of the true classes; infinite for a class the model does not know."""
        return math.fsum(self._losses) / self.n_rows

    @property
    def recall(self) -> Array:
        """Share of the rows of each class that were predicted to be; NaN where it has none."""
        return _shares(self.hits, self.rows)

    @property
    def precision(self) -> Array:
        """Share of the rows predicted to be of each class that are; NaN where there are none."""
        return _shares(self.hits, self.predicted)

    @property
    def f1(self) -> Array:
        """The harmonic mean of recall and precision; NaN for a class that nowhere occurs."""
        return _shares(2 * self.hits, self.rows + self.predicted)

    def calibration(self) -> tuple[Array, Array, Array]:
        """Return predicted probability, observed share, and share of all rows, of each used bin.

        The probability is that of the predicted class, or of two classes that of the second one.
        The bins are those of scikit-learn's calibration_curve with as many of them.
        """
        n_rows, n_hits, p = self._bins[:, self._bins[0] > 0]
        return p / n_rows, n_hits / n_rows, n_rows / self.n_rows

    def weakest(self, most: int) -> Array:
        """Return the numbers of the classes with the lowest F1, so many at most, lowest first."""
        # Of equal ones the class with the most rows; NaN is last.
        order: Array = np.lexsort((-self.rows, self.f1))
        return order[:most]


def score(model: Any, source: ChunkSource) -> Score:
    """Stream labelled rows past a classifier of scikit-learn's kind."""
    # A label that is no class of the source, and has the code -1, is none of the model either.
    numbers = np.append(match_labels(source.classes, model.classes_), -1)
    result = Score(model.classes_)
    for X, codes, *_ in source():
        with np.errstate(divide="ignore"):  # scikit-learn's estimators take log 0
            log_p = model.predict_log_proba(X)
        result.add(log_p, numbers[codes])
    return result


def _shares(parts: Array, totals: Array) -> Array:
    shares: Array = np.divide(parts, totals, out=np.full(len(totals), np.nan), where=totals > 0)
    return shares
