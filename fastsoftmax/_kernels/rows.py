"""Softmax of a tile of rows: the one place where the shift by the maximum is decided.

A tile holds logits transposed: class k's values for TILE consecutive rows lie at
``z[k * TILE : (k + 1) * TILE]``. Rows run along the lanes, so nothing is summed across lanes and
no lane is wasted on few classes.
"""

from __future__ import annotations

from fastsoftmax._kernels.elementary import exp, log
from fastsoftmax._kernels.emit import WIDTH
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.simd import (
    LANES_64,
    advance,
    lane_count,
    load,
    load_double,
    select,
    splat,
    store,
    sum_lanes,
)

# Terms added one after another; a single chain over 1000 classes cost a float32 sum 10 ULP.
_CHAIN = 64


@helper
def tile_rows(p):
    """Rows of a tile for the dtype at ``p``."""
    return WIDTH * lane_count(p)


@helper
def row_maxima(z, n_classes, maxima):
    """maxima[r] = max_k z[k, r]; a NaN may be passed over here, the sum shows it."""
    tile = tile_rows(z)
    for v in range(WIDTH):
        column = advance(z, v * lane_count(z))
        m = load(column)
        for k in range(1, n_classes):
            value = load(advance(column, k * tile))
            m = select(value > m, value, m)
        store(advance(maxima, v * lane_count(z)), m)


@helper
def exp_shifted(z, n_classes, maxima, sums):
    """z[k, r] becomes exp(z[k, r] - maxima[r]); sums[r] = Σ_k of that, at least 1."""
    tile = tile_rows(z)
    for v in range(WIDTH):
        column = advance(z, v * lane_count(z))
        m = load(advance(maxima, v * lane_count(z)))
        total = splat(0.0, m)
        for first in range(0, n_classes, _CHAIN):
            part = splat(0.0, m)
            for k in range(first, min(first + _CHAIN, n_classes)):
                p = advance(column, k * tile)
                e = exp(load(p) - m)
                store(p, e)
                part = part + e
            total = total + part
        store(advance(sums, v * lane_count(z)), total)


@helper
def scale_rows(z, n_classes, weight, sums):
    """z[k, r] becomes z[k, r]·weight[r]/sums[r]; 0 where the weight is 0, whatever z is."""
    tile = tile_rows(z)
    for v in range(WIDTH):
        column = advance(z, v * lane_count(z))
        w = load(advance(weight, v * lane_count(z)))
        zero = splat(0.0, w)
        nothing = w == zero
        factor = w / load(advance(sums, v * lane_count(z)))
        for k in range(n_classes):
            p = advance(column, k * tile)
            store(p, select(nothing, zero, load(p) * factor))


@helper
def weighted_loss(sums, gap, weight):
    """Σ_r weight[r]·(log sums[r] + gap[r]) over a tile in float64, gap = maximum - target logit."""
    total = splat(0.0, load_double(sums))
    zero = total
    for start in range(0, tile_rows(sums), LANES_64):
        w = load_double(advance(weight, start))
        row = log(load_double(advance(sums, start))) + load_double(advance(gap, start))
        total = total + select(w == zero, zero, w * row)
    return sum_lanes(total)


@helper
def add_row_sums(z, n_classes, total):
    """total[k] += Σ_r z[k, r]."""
    tile = tile_rows(z)
    for k in range(n_classes):
        row = advance(z, k * tile)
        v = load(row)
        for i in range(1, WIDTH):
            v = v + load(advance(row, i * lane_count(z)))
        total[k] += sum_lanes(v)
