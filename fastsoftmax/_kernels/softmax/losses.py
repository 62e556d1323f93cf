"""The loss of a tile of logits, and what its gradient needs: P - Y in all its variants.

A tile holds logits transposed: class k's values for TILE consecutive rows lie at
``z[k * TILE : (k + 1) * TILE]``. Rows run along the lanes, so nothing is summed across lanes and
no lane is wasted on few classes.

Every option of the loss has been reduced to four things before it comes here: a row scale s, a
target row t, its sum T, and α. Row i's loss and gradient are

    s·(T·lse + ⟨t, -z⟩ + α·lse²)  computed as  s·(T·log Σexp(z - m) + ⟨t, m - z⟩ + α·lse²)
    s·((T + 2·α·lse)·p - t)

and a row of scale 0 contributes nothing, whatever its logits are: padding, ignored rows and rows of
weight 0 are the same thing. A plain label is t = e_y; it is subtracted where it lies. Only soft
targets (label smoothing, probabilities) are laid out as a second tile.
"""

from __future__ import annotations

from typing import NamedTuple

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.softmax.loops import (
    dot_over,
    exp_over,
    maximum_over,
    scale_deviation_over,
    scale_less_target_over,
    scale_over,
    scale_variance_over,
    target_over,
)
from fastsoftmax._kernels.vector.elementary import log
from fastsoftmax._kernels.vector.emit import WIDTH
from fastsoftmax._kernels.vector.lanes import lane, sum_lanes
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    as_float64_pointer,
    as_int64_pointer,
    as_pointer,
    lane_count,
    load,
    load_double,
    select,
    splat,
    store,
    store_narrow,
)

# Statistics of a row: maximum, sum, gap, weight, T, factor.
N_STATISTICS = 6


class Terms(NamedTuple):
    """What a kernel needs to know of the targets; addresses are 0 where there is nothing."""

    labels: int  # int64 (N,)
    weight: int  # (N,) row scales s
    targets: int  # (N, K) probabilities Y instead of labels
    soft: bool  # t = peak ∘ y + floor, with y the one-hot label or the row of Y; else t = e_label
    peak: int  # (K,)
    floor: int  # (K,)
    alpha: float
    row_losses: int  # float64 (N,), written where asked for


@helper
def tile_rows(p):
    """Rows of a tile for the dtype at ``p``."""
    return WIDTH * lane_count(p)


@helper
def gather_rows(terms, first, rows, z, like, statistics):
    """Row scales and, for plain labels, gaps m - z_y; nothing in the rows past ``rows``."""
    tile = tile_rows(z)
    maxima, gap = statistics, advance(statistics, 2 * tile)
    total = advance(statistics, 4 * tile)
    labels = as_int64_pointer(terms.labels)
    gather_weights(terms, first, rows, tile, advance(statistics, 3 * tile), like)
    if not terms.soft:
        for r in range(rows):
            gap[r] = maxima[r] - z[labels[first + r] * tile + r]
            total[r] = 1.0
        for r in range(rows, tile):
            gap[r] = 0.0
            total[r] = 0.0


@helper
def gather_weights(terms, first, rows, width, weight, like):
    """Row scales; 0 in the rows past ``rows`` up to ``width``."""
    weights = as_pointer(terms.weight, like)
    for r in range(rows):
        weight[r] = weights[first + r] if terms.weight != 0 else 1.0
    for r in range(rows, width):
        weight[r] = 0.0


@helper
def fill_targets(terms, first, rows, n_classes, t, like):
    """Lay t out as a tile; the rows past ``rows`` are zero."""
    tile = tile_rows(t)
    peak, floor = as_pointer(terms.peak, like), as_pointer(terms.floor, like)
    y, labels = as_pointer(terms.targets, like), as_int64_pointer(terms.labels)
    for k in range(n_classes):
        for r in range(tile):
            t[k * tile + r] = floor[k]
    if terms.targets == 0:
        for r in range(rows):
            t[labels[first + r] * tile + r] += peak[labels[first + r]]
        return
    for r in range(rows):
        for k in range(n_classes):
            t[k * tile + r] += peak[k] * y[(first + r) * n_classes + k]


@helper
def row_factors(terms, first, rows, width, statistics, stride, share):
    """Σ of the weighted losses of some rows, in float64; leaves share·s·(T + 2α·lse)/Σexp behind.

    Each of the statistics is ``stride`` elements behind the one before; ``width``, whole vectors of
    rows, are worked on.
    """
    total = splat(0.0, load_double(statistics))
    zero = total
    alpha, shares = splat(terms.alpha, zero), splat(share, zero)
    for r in range(0, width, LANES_64):
        row = advance(statistics, r)
        sums = load_double(advance(row, stride))
        weight = load_double(advance(row, 3 * stride))
        amount = load_double(advance(row, 4 * stride))
        log_sum = log(sums)
        loss = amount * log_sum + load_double(advance(row, 2 * stride))
        if terms.alpha != 0.0:
            lse = load_double(row) + log_sum
            loss = loss + alpha * lse * lse
            amount = amount + (alpha + alpha) * lse
        loss = select(weight == zero, zero, weight * loss)
        total = total + loss
        factor = select(weight == zero, zero, weight * shares * amount / sums)
        store_narrow(advance(row, 5 * stride), factor)
        if terms.row_losses != 0:
            store_row_losses(terms, first + r, min(LANES_64, rows - r), loss)
    return sum_lanes(total)


@helper
def store_row_losses(terms, first, rows, loss):
    out = as_float64_pointer(terms.row_losses)
    for r in range(rows):
        out[first + r] = lane(loss, r)


@helper
def loss_tile(terms, first, rows, n_classes, z, t, like, statistics, gradient):
    """Return the tile's weighted loss; with ``gradient``, z becomes s·((T + 2α·lse)·P - t)ᵀ."""
    lanes, tile = lane_count(z), tile_rows(z)
    if terms.soft:
        fill_targets(terms, first, rows, n_classes, t, like)
    for v in range(0, tile, lanes):
        store(advance(statistics, v), maximum_over(advance(z, v), n_classes, tile))
    gather_rows(terms, first, rows, z, like, statistics)
    for v in range(0, tile, lanes):
        column, row = advance(z, v), advance(statistics, v)
        m = load(row)
        if terms.soft:
            gap, total = target_over(column, advance(t, v), n_classes, tile, m)
            store(advance(row, 2 * tile), gap)
            store(advance(row, 4 * tile), total)
        store(advance(row, tile), exp_over(column, n_classes, tile, m))
    loss = row_factors(terms, first, rows, tile, statistics, tile, 1.0)
    if gradient:
        subtract_targets(terms, first, rows, n_classes, z, t, statistics)
    return loss


@helper
def subtract_targets(terms, first, rows, n_classes, z, t, statistics):
    lanes, tile = lane_count(z), tile_rows(z)
    weights = advance(statistics, 3 * tile)
    for v in range(0, tile, lanes):
        column, row = advance(z, v), advance(statistics, v)
        factor, weight = load(advance(row, 5 * tile)), load(advance(row, 3 * tile))
        if terms.soft:
            scale_less_target_over(column, advance(t, v), n_classes, tile, factor, weight)
        else:
            scale_over(column, n_classes, tile, factor)
    if not terms.soft:
        labels = as_int64_pointer(terms.labels)
        for r in range(rows):
            z[labels[first + r] * tile + r] -= weights[r]


@helper
def curvature_tile(terms, first, rows, n_classes, z, like, statistics, product):
    """Z becomes s·T·p∘(u - ⟨p, u⟩), with the logits u of a direction behind z; or s·T·p∘(1 - p)."""
    lanes, tile = lane_count(z), tile_rows(z)
    gather_weights(terms, first, rows, tile, statistics, like)
    for v in range(0, tile, lanes):
        column = advance(z, v)
        weight = load(advance(statistics, v))
        one = splat(1.0, weight)
        m = maximum_over(column, n_classes, tile)
        factor = one / exp_over(column, n_classes, tile, m)
        if product:
            u = advance(column, n_classes * tile)
            mean = dot_over(column, u, n_classes, tile) * factor
            scale_deviation_over(column, u, n_classes, tile, factor, mean, weight)
        else:
            scale_variance_over(column, n_classes, tile, factor, weight)
