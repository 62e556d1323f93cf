"""Runs the kernels that metrics are made with: sums of x xᵀ, and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._engine import address, aligned, draw, threads
from fastsoftmax._kernels.gram import draw_panels
from fastsoftmax._kernels.product import Product, draw_tiles
from fastsoftmax._plan import n_product_workers
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
    workers = n_product_workers(min(_ROWS, n_rows) * n**2 // 2, threads())
    for rows in blocks(n_rows, _ROWS):
        x = part[: rows.stop - rows.start]
        fill(rows, x[:, :n])
        draw(draw_panels, n, x, total, n_workers=workers)
    upper = np.triu(total[:, :n]).astype(np.float64)
    return upper + np.triu(upper, 1).T


def multiply_add(a: Array, b: Array, out: Array, lower: int) -> None:
    """Add a·b to ``out``; rows of b and out lie in whole cache lines, see `_backend`."""
    job = Product(
        a=address(a),
        a_row=a.strides[0] // a.itemsize,
        a_step=a.strides[1] // a.itemsize,
        b=address(b),
        b_row=b.strides[0] // b.itemsize,
        out=address(out),
        out_row=out.strides[0] // out.itemsize,
        n_rows=len(out),
        n_columns=out.shape[1],
        depth=len(b),
        lower=lower,
    )
    draw(draw_tiles, job, n_workers=n_product_workers(out.size * len(b), threads()))


def _row_length(n: int, dtype: np.dtype[Any]) -> int:
    """Whole cache lines, an odd number of them: rows then share out among the cache's sets."""
    line = 64 // dtype.itemsize
    return (-(-n // line) | 1) * line
