"""Losses of the rows of a block of `few_classes`, and what its gradient needs of the targets.

The gradient is e·factor + t·scale with e = exp(z - m), factor = s·(T + 2α·lse)/Σe and scale = -s,
both over the denominator, and t the targets; see `fastsoftmax._kernels.softmax.losses` for the letters.
"""

from __future__ import annotations

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.rows.few_rows import take_sums
from fastsoftmax._kernels.softmax.losses import gather_weights, row_factors
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    as_int64_pointer,
    as_pointer,
    fma,
    lane_count,
    load,
    load_double,
    load_first,
    select,
    splat,
    splat_double,
    store,
    store_narrow,
)


@helper
def repeat(values, n, rows, target):
    """Lay n values out for so many rows."""
    for r in range(rows):
        for k in range(n):
            target[r * n + k] = values[k]


@helper
def prepare_targets(terms, n, rows, room):
    """Lay out what blocks of targets have in common."""
    like, lanes = load(room.t), lane_count(room.t)
    if terms.soft:
        repeat(as_pointer(terms.floor, like), n, rows, room.floors)
        repeat(as_pointer(terms.peak, like), n, rows, room.peaks)
    for i in range(-lanes, rows * n + lanes, lanes):
        store(advance(room.t, i), splat(0.0, like))


@helper
def take_soft_targets(terms, first, rows, n, room):
    """Targets, and gaps times targets."""
    like, lanes, end = load(room.t), lane_count(room.t), rows * n
    labels, peak = as_int64_pointer(terms.labels), as_pointer(terms.peak, like)
    y = advance(as_pointer(terms.targets, like), first * n)
    zero = splat(0.0, like)
    for i in range(0, end, lanes):
        target = load(advance(room.floors, i))
        if terms.targets != 0:
            given = load_first(advance(y, i), end - i, zero)
            target = fma(load(advance(room.peaks, i)), given, target)
        store(advance(room.t, i), target)
    if terms.targets == 0:
        for r in range(rows):
            label = labels[first + r]
            room.t[r * n + label] += peak[label]
    for i in range(0, end, lanes):
        target = load(advance(room.t, i))
        term = target * (zero - load(advance(room.gaps, i)))
        # A gap may be infinite.
        store(advance(room.gaps, i), select(target == zero, zero, term))


@helper
def take_losses(job, terms, first, rows, x, room):
    """Weighted loss of the rows of a block; leaves factors, scales and targets behind."""
    lanes, n, like = lane_count(room.t), job.n, load(room.t)
    width, share = (rows + lanes - 1) // lanes * lanes, 1.0 / job.denominator
    gather_weights(terms, first, rows, width, room.scales, like)
    if terms.soft:
        take_soft_targets(terms, first, rows, n, room)
        take_sums(room.t, n, rows, room.amount)
        take_sums(room.gaps, n, rows, room.gap)
    else:
        labels = as_int64_pointer(terms.labels)
        for r in range(rows):
            place = r * n + labels[first + r]
            room.gap[r] = room.maxima[r] - x[place]
            room.t[place] = 1.0
        for r in range(0, width, lanes):
            store(advance(room.amount, r), splat(1.0, like))
    loss = row_factors(terms, first, rows, width, room.maxima, room.stride, share)
    for r in range(0, width, LANES_64):  # in float64: the share alone may be no normal float32
        p = advance(room.scales, r)
        store_narrow(p, load_double(p) * splat_double(-share))
    return loss


@helper
def clear_targets(terms, first, rows, n, room):
    """Make targets zero again where labels have left ones."""
    if not terms.soft:
        labels = as_int64_pointer(terms.labels)
        for r in range(rows):
            room.t[r * n + labels[first + r]] = 0.0
