"""Sums of x xᵀ over rows, of which preconditioners are made."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.backend import jit_disabled
from fastsoftmax.reference import Array

_ROWS = 1024  # that are filled at a time: they stay in the cache for their products


def gram(n_rows: int, n: int, dtype: npt.DTypeLike, fill: Callable[[slice, Array], Any]) -> Array:
    """Σ x xᵀ over rows x of length ``n``, which ``fill(rows, out)`` writes to ``out``.

    Products are summed in ``dtype``; the result is float64.
    """
    if jit_disabled():
        x = np.empty((n_rows, n), dtype)
        fill(slice(0, n_rows), x)
        return np.asarray(x.T @ x, np.float64)
    from fastsoftmax._evaluation.memory import aligned
    from fastsoftmax._evaluation.plans import n_product_workers
    from fastsoftmax._evaluation.threads import n_threads, run
    from fastsoftmax._kernels.algebra.gram import add_gram

    dtype = np.dtype(dtype)
    # Rows of whole cache lines, an odd number of them: so they share out among the cache's sets.
    line = 64 // dtype.itemsize
    stride = (-(-n // line) | 1) * line
    total, rows = aligned(n, stride, dtype), aligned(min(_ROWS, n_rows), stride, dtype)
    total[:] = 0
    rows[:, n:] = 0
    workers = n_product_workers(min(_ROWS, n_rows) * n**2 // 2, n_threads())
    for first in range(0, n_rows, _ROWS):
        stop = min(first + _ROWS, n_rows)
        x = rows[: stop - first]
        fill(slice(first, stop), x[:, :n])
        run(add_gram, n, x, total, n_workers=workers)
    upper = np.triu(total[:, :n]).astype(np.float64)
    return upper + np.triu(upper, 1).T
