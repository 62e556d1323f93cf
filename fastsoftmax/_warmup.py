"""Compile the common kernels before they are needed."""

from typing import Any

import numpy as np

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
        linear_cross_entropy_value_and_grad(
            np.zeros((1, 1), dtype), np.zeros((2, 1), dtype), np.zeros(1, np.int64)
        )
        # What a fit's first preconditioner is made of.
        gram(1024, 8, dtype, lambda rows, out: out.fill(0))
