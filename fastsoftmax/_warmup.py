"""Compile the common kernels before they are needed."""

from typing import Any

import numpy as np

from fastsoftmax._evaluation import pace
from fastsoftmax._evaluation.grams import gram
from fastsoftmax.functional import linear_cross_entropy_value_and_grad


def warmup(dtypes: tuple[Any, ...] = (np.float32, np.float64)) -> None:
    """Compile the common kernels, or load them from Numba's disk cache, now.

    Parameters
    ----------
    dtypes : tuple of dtypes
        Which precisions to prepare.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.warmup()
    """
    try:
        known = all(np.dtype(dtype) in (np.float32, np.float64) for dtype in dtypes)
    except TypeError:
        known = False
    if not known:
        raise TypeError(f"dtypes: expected a tuple of float32 and float64, got {dtypes!r}")
    for dtype in dtypes:
        # The smallest problem takes the serial kernels, the other one the parallel ones: once it
        # has been tried on one core.
        for n_rows, n_features, n_classes in ((1, 1, 2), (2048, 64, 64)):
            X = np.zeros((n_rows, n_features), dtype)
            W = np.zeros((n_classes, n_features), dtype)
            for _ in range(pace.TRIALS + 1):
                linear_cross_entropy_value_and_grad(X, W, np.zeros(n_rows, np.int64))
        for n in (8, 128):  # what a fit's first preconditioner is made of, serial and parallel too
            gram(1024, n, dtype, lambda rows, out: out.fill(0))
