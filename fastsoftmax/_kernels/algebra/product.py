"""Products of small matrices in float64, which metrics are solved with.

NumPy would take a BLAS whose threads go on spinning on the cores of the next evaluation.
"""

from __future__ import annotations

from typing import NamedTuple

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.modes import LOWER_A, LOWER_B
from fastsoftmax._kernels.vector.emit import HEIGHT, WIDTH
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_float64_pointer,
    fetch_add,
    lane_count,
    pointer,
)
from fastsoftmax._kernels.vector.tiles import contract

# Rows that a worker takes at a time: a panel of b stays in its L2 meanwhile.
_ROWS = 8 * HEIGHT


class Product(NamedTuple):
    """out += a·b. Addresses of float64, and elements from row to row, of a from column to column.

    Rows of b and out hold ``n_columns``, whole vectors. ``lower`` says what is triangular.
    """

    a: int
    a_row: int
    a_step: int
    b: int
    b_row: int
    out: int
    out_row: int
    n_rows: int
    n_columns: int
    depth: int
    lower: int


@helper
def add_tiles(product, row, column):
    """Add the product of _ROWS rows of a with a panel of columns of b."""
    a, b = as_float64_pointer(product.a), as_float64_pointer(product.b)
    out = as_float64_pointer(product.out)
    width = min(WIDTH, (product.n_columns - column) // lane_count(out))
    start = column if product.lower == LOWER_B else 0
    for i in range(row, min(row + _ROWS, product.n_rows), HEIGHT):
        height = min(HEIGHT, product.n_rows - i)
        stop = min(product.depth, i + height) if product.lower == LOWER_A else product.depth
        if start < stop:
            tile = advance(out, i * product.out_row + column)
            contract(
                height, width, stop - start,
                advance(a, i * product.a_row + start * product.a_step), product.a_row,
                product.a_step,
                advance(b, start * product.b_row + column), product.b_row,
                tile, product.out_row,
                tile, product.out_row,
                0, 0,
            )  # fmt: skip


@kernel
def draw_tiles(product, arrays):
    """Draw blocks of the result."""
    (shared,) = arrays
    columns = WIDTH * lane_count(as_float64_pointer(product.out))
    n_blocks = (product.n_rows + _ROWS - 1) // _ROWS
    n_panels = (product.n_columns + columns - 1) // columns
    task = fetch_add(pointer(shared), 1)
    while task < n_blocks * n_panels:
        add_tiles(product, task % n_blocks * _ROWS, task // n_blocks * columns)
        task = fetch_add(pointer(shared), 1)
