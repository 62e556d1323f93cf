"""Runs the kernel of sums of x xᵀ."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._engine import aligned, parallel_region, threads
from fastsoftmax._kernels import gram as kernels
from fastsoftmax._plan import n_gram_workers

Array = npt.NDArray[Any]

_ROWS = 1024  # rows that are weighted at a time, and stay in the cache for their products


def gram(X: Array, weight: Array) -> Array:
    """Σ weight·x xᵀ over the rows of X, for weights ≥ 0: computed in X's dtype."""
    n, scale = X.shape[1], np.sqrt(weight).astype(X.dtype)
    stride = _row_length(n, X.dtype)
    total, part = aligned(n, stride, X.dtype), aligned(min(_ROWS, len(X)), stride, X.dtype)
    total[:] = 0
    part[:, n:] = 0
    workers = n_gram_workers(len(X), n, threads())
    for first in range(0, len(X), _ROWS):
        x = part[: len(X) - first]
        np.multiply(X[first : first + len(x)], scale[first : first + len(x), None], out=x[:, :n])
        shared = np.zeros(1, np.int64)
        with parallel_region(workers) as workers:
            if workers > 1:
                kernels.draw_panels_parallel(workers, x, n, total, shared)
            else:
                kernels.draw_panels(x, n, total, shared)
    upper = np.triu(total[:, :n]).astype(np.float64)
    return upper + np.triu(upper, 1).T


def _row_length(n: int, dtype: np.dtype[Any]) -> int:
    """Whole cache lines, an odd number of them: rows then share out among the cache's sets."""
    line = 64 // dtype.itemsize
    return (-(-n // line) | 1) * line
