"""The estimator of rows on Dask's workers."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from dask import delayed
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

import fastsoftmax.linear_model as linear_model
from fastsoftmax._evaluation import validate
from fastsoftmax.dask._inputs import as_array, is_dask, partitions, whole_rows
from fastsoftmax.dask._objective import spread
from fastsoftmax.dask._shares import Rows, Shares, naming
from fastsoftmax.linear_model._callbacks import with_callbacks
from fastsoftmax.linear_model._fitting import (
    Prepared,
    check_parameters,
    fit_prepared,
    prepare,
    probability_weights,
    set_features,
)
from fastsoftmax.linear_model._labels import label_numbers

Array = npt.NDArray[Any]


class SoftmaxRegression(linear_model.SoftmaxRegression):
    """`fastsoftmax.linear_model.SoftmaxRegression` that takes rows on Dask's workers as well.

    Parameters and attributes are the same, without ``partial_fit`` and
    ``feature_names_in_`` for rows of Dask. Those of NumPy and SciPy are fitted and predicted here,
    as usual.

    Examples
    --------
    >>> import dask.array as da
    >>> from dask.distributed import Client
    >>> from fastsoftmax.dask import SoftmaxRegression
    >>> client = Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0")
    >>> X = da.random.default_rng(0).standard_normal((4000, 5), chunks=(1000, 5))
    >>> y = da.where(X[:, 0] > X[:, 1], "left", "right")
    >>> model = SoftmaxRegression().fit(X, y)
    >>> model.predict(X)
    dask.array<_predicted, shape=(4000,), dtype=<U5, chunksize=(1000,), chunktype=numpy.ndarray>
    >>> model.score(X, y) > 0.95
    True
    >>> client.close()
    """

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SoftmaxRegression:
        """Fit to rows on Dask's workers, or to those that the base class takes.

        Parameters
        ----------
        X : dask array (n_samples, n_features), dask dataframe, or list of delayed partitions
            Finite features; anything else goes to `fastsoftmax.linear_model.SoftmaxRegression.fit`.
        y : dask array, dask series, or list of delayed partitions
            Labels of any sortable kind, or rows of non-negative targets, in partitions like X.
        sample_weight : dask array, dask series, or list of delayed partitions, optional
            Finite weights ≥ 0.

        Returns
        -------
        SoftmaxRegression
            Itself.

        Raises
        ------
        TypeError, ValueError
            As the base class, naming the partition, counted from 0.
        """
        check_parameters(self)
        given = X, y, sample_weight
        fit_prepared(self, _prepare(self, *given) if is_dask(X) else prepare(self, *given))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Go on training by Adam with rows of NumPy or SciPy; see the base class."""
        if is_dask(X):
            raise TypeError("X: expected rows in memory for partial_fit, got Dask's; use fit")
        return super().partial_fit(X, y, classes, sample_weight)

    def predict(self, X: Any) -> Any:
        """Name the most probable class of every row; lazily for Dask's."""
        if not is_dask(X):
            return super().predict(X)
        return self._lazily(X, "predict", self.classes_.dtype, by_class=False)

    def predict_proba(self, X: Any) -> Any:
        """Class probabilities (n_samples, n_classes); lazily for Dask's rows."""
        return super().predict_proba(X) if not is_dask(X) else self._lazily(X, "predict_proba")

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of the probabilities; lazily for Dask's rows."""
        if not is_dask(X):
            return super().predict_log_proba(X)
        return self._lazily(X, "predict_log_proba")

    def decision_function(self, X: Any) -> Any:
        """Logits, for two classes their difference; lazily for Dask's rows."""
        if not is_dask(X):
            return super().decision_function(X)
        return self._lazily(X, "decision_function", by_class=len(self.classes_) > 2)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of rows whose class is predicted right."""
        if not is_dask(X):
            return float(super().score(X, y, sample_weight))
        right = self.predict(X) == as_array(y)
        if sample_weight is None:
            return float(right.mean().compute())
        weight = as_array(sample_weight)
        return float(((right * weight).sum() / weight.sum()).compute())

    def _lazily(self, X: Any, method: str, dtype: Any = None, by_class: bool = True) -> Any:
        """Return a Dask array of what a method gives for the blocks of X."""
        check_is_fitted(self)
        X = whole_rows(as_array(X))
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected {self.n_features_in_} columns, got {X.shape[1]}")
        if dtype is None:
            single = validate.compute_dtype(X.dtype, "X") == self.coef_.dtype == np.float32
            dtype = np.dtype(np.float32 if single else np.float64)
        shape = (0, len(self.classes_)) if by_class else (0,)
        model = delayed(copy.copy(self), pure=False, traverse=False)
        return X.map_blocks(
            _predicted,
            model,
            method,
            meta=np.empty(shape, dtype),
            **({"chunks": (X.chunks[0], shape[1:])} if by_class else {"drop_axis": 1}),
        )


def _prepare(model: SoftmaxRegression, X: Any, y: Any, sample_weight: Any) -> Prepared:
    """Leave shares of the rows on the workers, and return the problem they pose."""
    shares = Shares(*partitions(X, y, sample_weight), finite=True)
    n_targets = shares.kind.n_targets
    classes = _classes(shares) if n_targets is None else np.arange(n_targets)
    problem = spread(
        shares,
        len(classes),
        float(model.l2),
        bool(model.fit_intercept),
        None if n_targets else functools.partial(label_numbers, classes=classes),
        class_weight=_weights_of_classes(model.class_weight, shares, classes),
    )
    set_features(model, problem.n_features, None)
    return Prepared(X, y, sample_weight, problem, classes)


def _weights_of_classes(class_weight: Any, shares: Shares, classes: Array) -> Array | None:
    """Weights of the classes (K,), from scikit-learn's ways to give them."""
    if class_weight is None or shares.kind.n_targets:
        return probability_weights(class_weight, len(classes))
    if class_weight == "balanced":
        counts = sum(shares.map(_count, [classes] * len(shares.first)))
        return np.asarray(counts.sum() / (len(classes) * counts))
    weights = compute_class_weight(class_weight, classes=classes, y=classes)
    return np.asarray(weights)


def _predicted(block: Any, model: SoftmaxRegression, method: str, meta: Any = None) -> Array:
    """Call a method of the model for a block, which may be empty."""
    if block.shape[0]:
        return np.asarray(getattr(model, method)(block))
    return np.asarray(getattr(model, method)(np.zeros((1, block.shape[1]), block.dtype))[:0])


def _classes(shares: Shares) -> Array:
    classes = np.unique(np.concatenate(shares.map(_unique, shares.first)))
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got {len(classes)}: {classes}")
    return classes


def _unique(share: list[Rows], first: int) -> Array:
    found = []
    for partition, rows in enumerate(share, first):
        with naming(partition):
            if len(rows.y):
                check_classification_targets(rows.y)
                found.append(np.unique(rows.y))
    return np.unique(np.concatenate(found)) if found else share[0].y[:0]


def _count(share: list[Rows], classes: Array) -> Array:
    """Weight of the rows of each class."""
    return sum(
        (
            np.bincount(label_numbers(y, classes), weights=weight, minlength=len(classes))
            for _, y, weight in share
        ),
        np.zeros(len(classes)),
    )
