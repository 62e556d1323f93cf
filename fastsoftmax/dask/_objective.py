"""The objective of rows on Dask's workers."""

from typing import Any, Self

import numpy.typing as npt

import fastsoftmax.objective as objective
from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax._evaluation.targets import check_options
from fastsoftmax.dask._inputs import is_dask, partitions
from fastsoftmax.dask._shares import Shares, largest_label
from fastsoftmax.dask._sums import Distributed


def make_problem(
    shares: Shares,
    n_classes: int | None,
    l2: float,
    fit_intercept: bool,
    encode: Any = None,
    **options: Any,
) -> Problem:
    """Check the options and let the workers make their targets; ``encode`` numbers the labels."""
    if sum(shares.n_rows) == 0:
        raise ValueError("X: expected at least one row, got none in any partition")
    if n_classes is None:
        n_classes = max(shares.kind.n_targets or max(shares.map(largest_label)) + 1, 2)
    n_classes = validate.as_count(n_classes, "n_classes", at_least=2)
    options["n_classes"] = n_classes
    check_options(**options)  # here, not by every worker
    shares.prepare(encode, **options)
    return Problem(Distributed(shares), n_classes, l2, fit_intercept)


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
        self.problem = make_problem(
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
    ) -> Self:
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
        problem = make_problem(
            Shares(list(source), None, n_shares), n_classes, l2, fit_intercept,
            class_weight=class_weight, label_smoothing=label_smoothing,
        )  # fmt: skip
        if n_features not in (None, problem.n_features):
            raise ValueError(f"X: expected {n_features} columns, got {problem.n_features}")
        return cls.from_problem(problem)
