"""Runs the kernel of sums of x xᵀ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._engine import aligned, parallel_region, threads
from fastsoftmax._kernels import gram as kernels
from fastsoftmax._plan import n_gram_workers
from fastsoftmax.solvers import blocks

Array = npt.NDArray[Any]

_ROWS = 1024  # at a time: they stay in the cache for their products


def gram(n_rows: int, n: int, dtype: npt.DTypeLike, fill: Callable[[slice, Array], Any]) -> Array:
    """Σ x xᵀ over rows x of length ``n``, which ``fill(rows, out)`` writes to ``out``."""
    dtype = np.dtype(dtype)
    stride = _row_length(n, dtype)
    total, part = aligned(n, stride, dtype), aligned(min(_ROWS, n_rows), stride, dtype)
    total[:] = 0
    part[:, n:] = 0
    workers = n_gram_workers(n_rows, n, threads())
    for rows in blocks(n_rows, _ROWS):
        x = part[: rows.stop - rows.start]
        fill(rows, x[:, :n])
        with parallel_region(workers) as workers:
            run = kernels.draw_panels_parallel if workers > 1 else kernels.draw_panels
            run(x, n, total, np.array([0, workers]))
    upper = np.triu(total[:, :n]).astype(np.float64)
    return upper + np.triu(upper, 1).T


def _row_length(n: int, dtype: np.dtype[Any]) -> int:
    """Whole cache lines, an odd number of them: rows then share out among the cache's sets."""
    line = 64 // dtype.itemsize
    return (-(-n // line) | 1) * line
