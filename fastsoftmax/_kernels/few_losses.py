"""Losses of rows of few logits: transposed, rows in lanes, as in `fastsoftmax._kernels.loss`.

Gradients are written in whole vectors: what a row has too many is overwritten by the row behind it,
so the target needs room for one vector more than it has values (masked stores took longer than
exp).
"""

from __future__ import annotations

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.loss import N_STATISTICS, loss_tile, tile_rows
from fastsoftmax._kernels.simd import advance, as_pointer, lane_count, load, splat
from fastsoftmax._kernels.tiles import (
    load_rows,
    load_rows_within,
    scale_rows,
    store_rows,
    transpose,
)


@inlined
def read_transposed(x, n, rows, rows_after, z, width):
    """Lay ``rows`` rows of n logits out as z[k * width + row], ``width`` whole vectors of rows.

    Whole vectors are read even past a row's end where enough rows follow in memory.
    """
    lanes = lane_count(z)
    for r in range(0, width, lanes):
        for k in range(0, n, lanes):
            source = advance(x, r * n + k)
            height = rows - r
            within = n - k >= lanes or (rows_after + height - lanes) * n >= lanes
            if height >= lanes and within:
                vectors = load_rows(source, n, z)
            else:
                vectors = load_rows_within(source, n, height, n - k, z)
            store_rows(advance(z, k * width + r), width, transpose(vectors))


@helper
def write_transposed(z, width, n, factor, out):
    """out[row, k] = z[k * width + row]·factor, a vector of rows."""
    lanes = lane_count(z)
    # The last vector of a row spills into the next row, so it is written first.
    for k in range((n - 1) // lanes * lanes, -1, -lanes):
        vectors = scale_rows(load_rows(advance(z, k * width), width, z), factor)
        store_rows(advance(out, k), n, transpose(vectors))


@helper
def loss_of_tiles(job, terms, first, rows, out, z):
    """Weighted loss of some rows, and their gradient."""
    lanes, tile, n = lane_count(z), tile_rows(z), job.n
    statistics = z
    z = advance(z, N_STATISTICS * tile)
    t = advance(z, (n + lanes - 1) // lanes * lanes * tile)
    zero = splat(0.0, load(statistics))
    share = splat(1.0 / job.denominator, zero)
    loss = 0.0
    for r in range(0, rows, tile):
        x = advance(as_pointer(job.x, zero), (first + r) * n)
        here = min(tile, rows - r)
        read_transposed(x, n, here, job.n_rows - first - r - here, z, tile)
        loss += loss_tile(terms, first + r, here, n, z, t, zero, statistics, job.out != 0)
        if job.out != 0:
            for v in range(0, here, lanes):
                target = advance(out, (r + v) * n)
                write_transposed(advance(z, v), tile, n, share, target)
    return loss
