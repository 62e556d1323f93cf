"""The estimator of rows on Dask's workers."""

import copy
import functools
import itertools
from typing import Any, Self

import numpy as np
from dask import delayed
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

import fastsoftmax.linear_model as linear_model
from fastsoftmax._evaluation import validate
from fastsoftmax.dask._inputs import as_array, is_dask, partitions
from fastsoftmax.dask._objective import make_problem
from fastsoftmax.dask._shares import Rows, Shares
from fastsoftmax.linear_model import _fitting
from fastsoftmax.linear_model._callbacks import with_callbacks
from fastsoftmax.linear_model._labels import label_numbers
from fastsoftmax.reference import Array


def _of_rows(name: str, summary: str, result: str) -> Any:
    """Make the method of this name take Dask's rows as well: chunk by chunk, and lazily."""
    method = getattr(linear_model.SoftmaxRegression, name)

    @functools.wraps(method)
    def of_rows(self: linear_model.SoftmaxRegression, X: Any) -> Any:
        if not is_dask(X):
            return method(self, X)
        check_is_fitted(self)
        names, known = _names(X), getattr(self, "feature_names_in_", None)
        if names is not None and known is not None and names != list(known):
            raise ValueError(f"X: expected the columns {list(known)} in this order, got {names}")
        X = as_array(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected {self.n_features_in_} columns, got {X.shape[1]}")
        model = copy.copy(self)
        model.__dict__.pop("feature_names_in_", None)  # the chunks are arrays, without names
        meta = _predicted(np.empty((0, self.n_features_in_), X.dtype), model, name)
        by_class = {"chunks": (X.chunks[0], meta.shape[1:])} if meta.ndim == 2 else {"drop_axis": 1}
        model = delayed(model, pure=False, traverse=False)
        return X.map_blocks(_predicted, model, name, meta=meta, **by_class)

    of_rows.__doc__ = f"""{summary}

        Parameters
        ----------
        X : dask array or dataframe (n_samples, n_features), or what the base class takes
            Features.

        Returns
        -------
        dask array or ndarray, shape {result}; for Dask's rows it is computed when asked for.

        Raises
        ------
        ValueError
            Where X has not as many columns as in fit.
        """
    return of_rows


def _predicted(chunk: Any, model: linear_model.SoftmaxRegression, name: str) -> Array:
    """Call a method of the model for a chunk, which may be empty."""
    n_rows, n_features = chunk.shape
    rows = chunk if n_rows else np.zeros((1, n_features), chunk.dtype)
    return np.asarray(getattr(model, name)(rows)[:n_rows])


class SoftmaxRegression(linear_model.SoftmaxRegression):
    """`fastsoftmax.linear_model.SoftmaxRegression` that takes rows on Dask's workers as well.

    Parameters and attributes are the same. Rows of NumPy and SciPy are fitted and predicted here,
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
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
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
        _fitting.check_parameters(self)
        prepare = prepare_shares if is_dask(X) else _fitting.prepare
        _fitting.fit_prepared(self, prepare(self, X, y, sample_weight))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Go on training by Adam with rows in memory.

        Parameters
        ----------
        X, y, classes, sample_weight
            As the base class takes them, none of Dask's.

        Returns
        -------
        SoftmaxRegression
            Itself.

        Raises
        ------
        TypeError
            For Dask's rows.
        ValueError
            As the base class.
        """
        if is_dask(X):
            raise TypeError("X: expected rows in memory for partial_fit, got Dask's; use fit")
        return super().partial_fit(X, y, classes, sample_weight)

    decision_function = _of_rows(
        "decision_function",
        "Logits; for two classes their difference z₁ - z₀.",
        "(n_samples, n_classes) or (n_samples,)",
    )
    predict = _of_rows("predict", "Name the most probable class of every row.", "(n_samples,)")
    predict_proba = _of_rows("predict_proba", "Class probabilities.", "(n_samples, n_classes)")
    predict_log_proba = _of_rows(
        "predict_log_proba", "Logarithms of the probabilities.", "(n_samples, n_classes)"
    )

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy: how much of the rows, or of their weight, is predicted right.

        Parameters
        ----------
        X : dask array or dataframe (n_samples, n_features), or what the base class takes
            Features.
        y : dask array or series (n_samples,), or what the base class takes
            Labels.
        sample_weight : dask array or series (n_samples,), optional
            Weights of the rows.

        Returns
        -------
        float
            From 0 to 1; computed here, for Dask's rows too.
        """
        if not is_dask(X):
            return float(super().score(X, y, sample_weight))
        right = self.predict(X) == as_array(y)
        if sample_weight is None:
            return float(right.mean().compute())
        weight = as_array(sample_weight)
        return float(((right * weight).sum() / weight.sum()).compute())


def prepare_shares(model: Any, X: Any, y: Any, sample_weight: Any) -> _fitting.Prepared:
    """Bring the rows' shares to the workers, and return the problem they pose."""
    shares = Shares(*partitions(X, y, sample_weight), finite=True)
    n_targets = shares.kind.n_targets
    classes = _classes(shares) if n_targets is None else np.arange(n_targets)
    encode = None if n_targets else functools.partial(label_numbers, classes=classes)
    weights = _weights_of_classes(model.class_weight, shares, classes)
    l2, intercept = float(model.l2), bool(model.fit_intercept)
    problem = make_problem(shares, len(classes), l2, intercept, encode, class_weight=weights)
    _fitting.set_features(model, problem.n_features, _names(X))
    return _fitting.Prepared(X, y, sample_weight, problem, classes)


def _names(X: Any) -> list[str] | None:
    """Return the names of a dataframe's columns, if they are texts."""
    names = list(getattr(X, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def _weights_of_classes(class_weight: Any, shares: Shares, classes: Array) -> Array | None:
    """Weights of the classes (K,), from scikit-learn's ways to give them."""
    if class_weight is None or shares.kind.n_targets:
        return _fitting.probability_weights(class_weight, len(classes))
    if class_weight == "balanced":
        counts = shares.map(_count, itertools.repeat(classes))
        # Added share by share, as the order of the sums is part of the result's bits.
        weights: Any = sum(sum(counts[share], np.zeros(len(classes))) for share in shares.slices)
        return np.asarray(weights.sum() / (len(classes) * weights))
    return np.asarray(compute_class_weight(class_weight, classes=classes, y=classes))


def _classes(shares: Shares) -> Array:
    """Sorted labels of all rows, two at least."""
    found = [labels for labels in shares.map(_unique) if len(labels)]
    classes = np.unique(np.concatenate(found or [np.empty(0)]))
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got {len(classes)}: {classes}")
    return classes


def _unique(rows: Rows) -> Array:
    """Sorted labels of a partition, which may be empty."""
    if len(rows.y):
        with validate.naming(f"partition {rows.partition}"):
            check_classification_targets(rows.y)
    return np.unique(rows.y)


def _count(rows: Rows, classes: Array) -> Array:
    """Weight of the rows of each class."""
    labels = label_numbers(rows.y, classes)
    return np.bincount(labels, weights=rows.weight, minlength=len(classes))
