"""Scores of a path of fits, on the rows that a fold leaves out."""

import copy
import inspect
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.scores import ARGMAX, LOG_SOFTMAX
from fastsoftmax.linear_model._logistic import LogisticRegression
from fastsoftmax.linear_model._scores import scores_of
from fastsoftmax.reference import Array


def _right(best: Array, labels: Array) -> Array:
    """Whether the best classes of rows are their labels."""
    return np.equal(best, labels)


def _log_likelihood(log_proba: Array, labels: Array) -> Array:
    """Log p of the labels, for p within the limits that scikit-learn's `log_loss` sets."""
    of_labels = log_proba[np.arange(len(labels)), labels].astype(float)
    eps = np.finfo(float).eps
    return of_labels.clip(np.log(eps), np.log1p(-eps))


# Scores that are the mean of a number for each row: what the kernels compute, and that number.
# scikit-learn's scorers check and convert labels anew for every fit. They took longer than all
# passes over X together.
_MEANS = {"accuracy": (ARGMAX, _right), "neg_log_loss": (LOG_SOFTMAX, _log_likelihood)}


class FoldScorer:
    """The scorer that ``scoring`` names, for rows that folds leave out; accuracy for None.

    ``labels`` are the numbers of y among the classes, ``params`` the metadata of the scorer.
    """

    def __init__(
        self,
        scoring: Any,
        X: Any,
        y: Array,
        labels: Array,
        classes: Array,
        sample_weight: Any,
        params: dict[str, Any],
    ) -> None:
        self.X, self.y, self.labels, self.classes = X, y, labels, classes
        self.params, self.scorer = params, None
        self.name = scoring if isinstance(scoring, str) else ""
        if scoring is None or self.name == "warn":  # as `score` of scikit-learn's estimator
            self.name, self.params = "accuracy", {"sample_weight": sample_weight}
        elif self.name not in _MEANS:
            self.scorer = _with_labels(get_scorer(scoring), classes)

    def scores(self, test: Array, Cs: Array, path: Array) -> list[float]:
        """Return the scores of a path of coefficients on some rows."""
        n_rows, n_features = self.X.shape
        test = np.arange(n_rows)[test]
        params = {name: _of_rows(value, test, n_rows) for name, value in self.params.items()}
        X = _take(self.X, test)
        path = path.astype(validate.compute_dtype(X.dtype, "X"))
        if self.scorer is None:
            return _means(self.name, X, self.labels[test], path, **params)
        y, model, found = self.y[test], LogisticRegression(), []
        model.classes_ = self.classes
        for C, coef in zip(Cs, path, strict=True):
            model.C, model.coef_ = C, coef[:, :n_features]
            has_intercept = coef.shape[1] > n_features
            model.intercept_ = coef[:, -1] if has_intercept else np.zeros(len(coef), path.dtype)
            found.append(float(self.scorer(model, X, y, **params)))
        return found


def _means(
    name: str, X: Any, labels: Array, path: Array, sample_weight: Array | None = None
) -> list[float]:
    """Scores by the kernels.

    Neighbours in C often have the same coefficients, and then the same score.
    """
    mode, of_rows = _MEANS[name]
    checked, n_features = validate.as_features(X), X.shape[1]
    known: dict[bytes, float] = {}
    for coef in path:
        if (key := coef.tobytes()) not in known:
            W, b = coef[:, :n_features], coef[:, n_features:]
            bias = b.ravel() if b.size else None
            values = of_rows(scores_of(checked, W, bias, mode), labels)
            if sample_weight is not None and not np.any(sample_weight):
                raise ValueError(
                    "cv: expected folds whose rows left out have a weight, got one without"
                )
            known[key] = float(np.average(values, weights=sample_weight))
    return [known[coef.tobytes()] for coef in path]


def _with_labels(scorer: Any, classes: Array) -> Any:
    """Tell a scorer of all labels, if it can be told: rows left out may lack some."""
    if not hasattr(scorer, "_score_func"):
        return scorer
    known = inspect.signature(scorer._score_func).parameters
    fixed: dict[str, Any] = {"labels": classes} if "labels" in known else {}
    if fixed and len(classes) == 2 and "pos_label" in known:
        fixed["pos_label"] = classes[-1]
    scorer = copy.copy(scorer)
    scorer._kwargs = {**fixed, **scorer._kwargs}
    return scorer


def _take(X: Any, rows: Array) -> Any:
    """Return some rows: a view where they follow each other, otherwise a copy."""
    if isinstance(X, np.ndarray) and len(rows) and (np.diff(rows) == 1).all():
        return X[rows[0] : rows[-1] + 1]
    return X[rows]


def _of_rows(value: Any, rows: Array, n_rows: int) -> Any:
    """Return what belongs to some rows, where ``value`` has something for each row."""
    if not hasattr(value, "__array__") and not isinstance(value, (list, tuple)):
        return value
    array = np.asarray(value)
    return array[rows] if array.ndim and len(array) == n_rows else value
