"""Runs the kernels that preconditioners are made with: sums of x xᵀ, and products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.backend import jit_disabled
from fastsoftmax._kernels.modes import FULL, LOWER_A, LOWER_B

Array = npt.NDArray[Any]

__all__ = ["FULL", "LOWER_A", "LOWER_B", "add_and_dot", "blocks", "gram", "multiply_add"]

_ROWS = 1024  # at a time: they stay in the cache for their products


def gram(n_rows: int, n: int, dtype: npt.DTypeLike, fill: Callable[[slice, Array], Any]) -> Array:
    """Σ x xᵀ over rows x of length ``n``, which ``fill(rows, out)`` writes to ``out``."""
    if jit_disabled():
        x = np.empty((n_rows, n), dtype)
        fill(slice(0, n_rows), x)
        return np.asarray(x.T @ x, np.float64)
    from fastsoftmax._evaluation.memory import aligned
    from fastsoftmax._evaluation.plans import n_product_workers
    from fastsoftmax._evaluation.threads import draw, n_threads
    from fastsoftmax._kernels.algebra.gram import draw_panels

    dtype = np.dtype(dtype)
    stride = _row_length(n, dtype)
    total, part = aligned(n, stride, dtype), aligned(min(_ROWS, n_rows), stride, dtype)
    total[:] = 0
    part[:, n:] = 0
    workers = n_product_workers(min(_ROWS, n_rows) * n**2 // 2, n_threads())
    for rows in blocks(n_rows, _ROWS):
        x = part[: rows.stop - rows.start]
        fill(rows, x[:, :n])
        draw(draw_panels, n, x, total, n_workers=workers)
    upper = np.triu(total[:, :n]).astype(np.float64)
    return upper + np.triu(upper, 1).T


def multiply_add(a: Array, b: Array, out: Array, lower: int = FULL) -> None:
    """Add a·b to ``out``, all float64; ``lower`` says which of a and b is lower triangular."""
    if jit_disabled():
        out += a @ b
        return
    from fastsoftmax._evaluation.memory import address
    from fastsoftmax._evaluation.plans import n_product_workers
    from fastsoftmax._evaluation.threads import draw, n_threads
    from fastsoftmax._kernels.algebra.product import Product, draw_tiles

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
    draw(draw_tiles, job, n_workers=n_product_workers(out.size * len(b), n_threads()))


def _row_length(n: int, dtype: np.dtype[Any]) -> int:
    """Whole cache lines, an odd number of them: rows then share out among the cache's sets."""
    line = 64 // dtype.itemsize
    return (-(-n // line) | 1) * line


def add_and_dot(a: Array, factor: float, b: Array, c: Array) -> float:
    """Add factor·b to a, in place, and return Σ a·c, of float64 vectors."""
    if len(a) < (1 << 16) or jit_disabled():
        a += factor * b
        return float(np.einsum("i,i->", a, c))
    from fastsoftmax._evaluation import vector_sweeps

    return vector_sweeps.add_and_dot(a, factor, b, c)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Cut range(n) into slices of at most ``size``."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))
