r"""Softmax regression over rows that lie on Dask's workers.

    from dask.distributed import Client
    from fastsoftmax.dask import SoftmaxRegression

    client = Client(n_workers=2, threads_per_worker=1)      # processes on this machine, or
    client = Client("scheduler:8786")                       # a cluster that runs already
    model = SoftmaxRegression(l2=1e-4).fit(X, y)            # dask arrays or dataframes
    model.predict(X)                                        # a dask array, not computed yet

**How it works.** The partitions are cut into shares, ranges of about equal size, one a worker. A
worker loads its share once and keeps it. An evaluation sends W out, each worker sums loss and
gradient in one sweep over its rows, and the sums are added in float64 in a fixed tree: on the
workers where they are large, so that the client receives one, and here where they are small. So the
bits follow from the partitions and the number of shares (``n_shares``), not from who computes what
when. Small sums are asked for by a message, which Dask's dashboard does not show; large ones, and
those where a message fails, are tasks. A share that dies with its worker is made again by Dask from
the graph that made it, as is W: a fit that loses workers ends with the same bits. A fit begins with
a sample of the rows, of about 64 MiB at most, sent to the client, which makes its metric of it (see
`fastsoftmax.metrics`).

**What an evaluation costs**, for N rows on M workers and a network of B bytes a second:

    passes     one over each worker's rows; no row leaves its worker
    work       N/M · 4KD multiply-adds and additions, or reading N/M · D numbers if that is longer
    messages   M of them and one round trip, or M tasks and about M/3 additions where K·D is large
    bytes      down 4KD (8KD in float64) to every worker, each passing it on: log₂M steps in a row;
               up 8KD from every worker, three at a time: 3·log₄M gradients in a row

Work and bytes are both proportional to K·D: what decides is the rows of a worker alone. The traffic
weighs as much as the work at a few thousand rows a worker, and the messages at a few hundred
thousand; beyond that, twice the workers take half the time.

**On a real cluster** start one worker process a machine, or one for each NUMA node, with as many
threads as it has cores: ``dask worker scheduler:8786 --nworkers 1 --nthreads 32``. A task that is
alone on its worker takes all of them; tasks at the same time share them out, and the kernels never
use more threads than Dask gave. Each worker needs room for its share, twice while it loads small
partitions, as it puts them together; partitions of some hundred megabytes are best, and better lazy
than persisted elsewhere, as each goes to the worker that keeps its share. Set ``NUMBA_CACHE_DIR``
to a directory of the machine's own, or the first evaluation compiles in every process. Have the
same versions of fastsoftmax, NumPy and Numba everywhere, the scheduler included, and the same kind
of CPU: block sizes follow from the CPU, and with them the last bits.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import distributed  # noqa: F401
    import sklearn  # noqa: F401
    from dask import delayed
except ImportError as error:
    raise ImportError(
        'fastsoftmax.dask needs Dask and scikit-learn: pip install "fastsoftmax[dask]"'
    ) from error

from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from fastsoftmax import _validate, linear_model, objective
from fastsoftmax._dask_inputs import as_array, is_dask, partitions, whole_rows
from fastsoftmax._dask_shares import Rows, Shares, naming
from fastsoftmax._dask_shares import largest_label as _largest_label
from fastsoftmax._dask_sums import Distributed
from fastsoftmax._options import make_targets
from fastsoftmax.linear_model._fitting import label_numbers

Array = npt.NDArray[Any]

__all__ = ["SoftmaxObjective", "SoftmaxRegression"]


class SoftmaxObjective(objective.SoftmaxObjective):
    """`fastsoftmax.SoftmaxObjective` of rows on Dask's workers.

    All its methods are here, for ``scipy.optimize.minimize`` as well; each evaluation is one pass
    over the rows, made where they lie. Rows are loaded here, once, and stay in the workers' memory
    for as long as the objective lives. Arithmetic runs in the dtype of X; sums of different shares
    are added in float64.

    Parameters
    ----------
    X : dask array (n_samples, n_features), dask dataframe, or list of delayed partitions
        Features; partitions are NumPy arrays, SciPy CSR matrices or pandas dataframes. Chunks of
        columns are put together; numbers of rows may be unknown, and zero.
    y : dask array, dask series, or list of delayed partitions
        Labels in [0, n_classes), or rows of non-negative targets, in partitions like X.
    n_classes, l2, fit_intercept, class_weight, label_smoothing
        As in `fastsoftmax.SoftmaxObjective`.
    sample_weight : dask array, dask series, or list of delayed partitions, optional
        Finite weights s ≥ 0, not all zero.
    n_shares : int, optional
        Into how many ranges of partitions the rows are cut, one task each; by default one for each
        worker there is. The result's bits follow from the partitions and this number alone.

    Raises
    ------
    TypeError, ValueError
        As `fastsoftmax.SoftmaxObjective`, naming the partition, counted from 0; also where there is
        no Dask client.

    Examples
    --------
    >>> import dask.array as da
    >>> from dask.distributed import Client
    >>> from scipy.optimize import minimize
    >>> from fastsoftmax.dask import SoftmaxObjective
    >>> client = Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0")
    >>> X = da.random.default_rng(0).standard_normal((4000, 5), chunks=(1000, 5)).persist()
    >>> obj = SoftmaxObjective(X, (X[:, 0] > X[:, 1]).astype(int), l2=1e-3)
    >>> result = minimize(obj, obj.x0, jac=True, method="L-BFGS-B")
    >>> W, b = obj.unpack(result.x)
    >>> W.shape, bool(result.fun < 0.2)
    ((2, 5), True)
    >>> client.close()
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        n_classes: int | None = None,
        l2: float = 0.0,
        fit_intercept: bool = True,
        sample_weight: Any = None,
        class_weight: npt.ArrayLike | None = None,
        label_smoothing: float = 0.0,
        n_shares: int | None = None,
    ) -> None:
        shares = Shares(*partitions(X, y, sample_weight), n_shares)
        self._spread(
            shares, n_classes, l2, fit_intercept, class_weight=class_weight,
            label_smoothing=label_smoothing,
        )  # fmt: skip

    @classmethod
    def from_chunks(
        cls,
        source: Any,
        *,
        n_features: int | None = None,
        n_classes: int | None = None,
        l2: float = 0.0,
        fit_intercept: bool = True,
        class_weight: npt.ArrayLike | None = None,
        label_smoothing: float = 0.0,
        n_shares: int | None = None,
    ) -> SoftmaxObjective:
        """Objective of delayed chunks, each loaded by a function of your own on some worker.

        Parameters
        ----------
        source : list of delayed or futures
            Each a tuple (X, y) or (X, y, sample_weight) of arrays.
        n_features : int, optional
            D, checked if given.
        n_classes, l2, fit_intercept, class_weight, label_smoothing, n_shares
            As in `SoftmaxObjective`.

        Returns
        -------
        SoftmaxObjective
            With the same bits, wherever the chunks are loaded.

        Raises
        ------
        TypeError, ValueError
            As `SoftmaxObjective`.

        Examples
        --------
        >>> import numpy as np
        >>> from dask import delayed
        >>> from dask.distributed import Client
        >>> from fastsoftmax.dask import SoftmaxObjective
        >>> def load(part):
        ...     rng = np.random.default_rng(part)
        ...     return rng.standard_normal((500, 3)), rng.integers(0, 4, 500)
        >>> with Client(processes=False, n_workers=1, dashboard_address=":0") as client:
        ...     obj = SoftmaxObjective.from_chunks([delayed(load)(part) for part in range(8)])
        ...     round(obj.value(obj.x0), 6), obj.n_rows
        (1.386294, 4000)
        """
        if not is_dask(source):
            raise TypeError(
                f"source: expected a list of delayed chunks, got {type(source).__name__}"
            )
        made = cls.__new__(cls)
        made._spread(
            Shares(list(source), None, n_shares), n_classes, l2, fit_intercept,
            class_weight=class_weight, label_smoothing=label_smoothing,
        )  # fmt: skip
        if n_features not in (None, made.n_features):
            raise ValueError(f"X: expected {n_features} columns, got {made.n_features}")
        return made

    def _spread(
        self,
        shares: Shares,
        n_classes: int | None,
        l2: float,
        fit_intercept: bool,
        encode: Any = None,
        **options: Any,
    ) -> None:
        """Check the options, and leave the shares with their targets on the workers."""
        if sum(shares.n_rows) == 0:
            raise ValueError("X: expected at least one row, got none in any partition")
        if n_classes is None:
            largest = shares.kind.n_targets or max(shares.map(_largest_label, shares.first)) + 1
            n_classes = max(largest, 2)
        n_classes = _validate.as_count(n_classes, "n_classes", at_least=2)
        _validate.as_strength(l2)
        options["n_classes"] = n_classes
        make_targets(np.empty(0, np.int64), 0, dtype=np.dtype("f4"), reduction="sum", **options)
        data = Distributed(shares.prepared(encode, **options))
        self._prepare(data, n_classes, l2, fit_intercept)


class SoftmaxRegression(linear_model.SoftmaxRegression):
    """`fastsoftmax.linear_model.SoftmaxRegression` that takes rows on Dask's workers as well.

    Parameters and attributes are the same, without solver "adam", ``partial_fit`` and
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

    def _objective(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any, Array]:
        if not is_dask(X):
            return super()._objective(X, y, sample_weight)
        if self.solver == "adam":
            raise ValueError('solver: expected another than "adam" for rows on Dask\'s workers')
        shares = Shares(*partitions(X, y, sample_weight), finite=True)
        n_targets = shares.kind.n_targets
        classes = _classes(shares) if n_targets is None else np.arange(n_targets)
        spread = SoftmaxObjective.__new__(SoftmaxObjective)
        spread._spread(
            shares,
            len(classes),
            float(self.l2),
            bool(self.fit_intercept),
            None if n_targets else functools.partial(label_numbers, classes=classes),
            class_weight=self._weights_of_classes(shares, classes),
        )
        self._set_features(spread.n_features, None)
        return X, y, spread, classes

    def _weights_of_classes(self, shares: Shares, classes: Array) -> Array | None:
        if self.class_weight is None or shares.kind.n_targets:
            return self._probability_weights(len(classes))
        if self.class_weight == "balanced":
            counts = sum(shares.map(_count, [classes] * len(shares.first)))
            return np.asarray(counts.sum() / (len(classes) * counts))
        weights = compute_class_weight(self.class_weight, classes=classes, y=classes)
        return np.asarray(weights)

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
            single = _validate.compute_dtype(X.dtype, "X") == self.coef_.dtype == np.float32
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
