"""Sums of columns: a maximum, how many equal it, and the sum of the others' exp (`rows`).

Summed in the dtype a block of rows at a time, and merged in float64. A block is read twice, from L1
the second time, while the next one is prefetched: rows lie too far apart for the hardware to do it.
"""

from __future__ import annotations

import math

from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.modes import LOGSUMEXP, SOFTMAX
from fastsoftmax._kernels.softmax.loops import (
    add_exp,
    finite_shift,
    log_of_sum,
    maximum,
    maximum_over,
    merge,
)
from fastsoftmax._kernels.vector.elementary import exp
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    lane_count,
    load,
    load_double,
    load_first,
    prefetch,
    select,
    splat,
    store,
    store_narrow,
)


@helper
def add_block(source, step, rows, ahead, top, count, rest):
    """Add some rows of a column of vectors to its running maximum and sums."""
    zero = splat(0.0, top)
    m = maximum(maximum_over(source, rows, step), top)
    shift = finite_shift(m)
    risen = m > top
    rest = select(risen, (rest + count) * exp(top - shift), rest)
    count = select(risen, zero, count)
    part = zero
    for i in range(rows):
        prefetch(advance(ahead, i * step))
        part, count = add_exp(load(advance(source, i * step)), m, shift, part, count)
    # -inf equals the maximum of a column of nothing but -inf, and still adds nothing.
    return m, select(shift == m, count, zero), rest + part


@helper
def add_rows(job, x, rows, left, right, limit, sums, edge):
    """Add rows, of which ``limit`` columns exist, to the sums of columns [left, right)."""
    lanes, step, size = lane_count(x), job.period, job.padded
    lowest = splat(-math.inf, load(edge))
    for i in range(0, rows, job.block):
        height = min(job.block, rows - i)
        following = job.block * step
        if i + job.block >= rows:  # the next strip
            following = job.strip - i * step if job.whole else 0
        for column in range(left, right, lanes):
            source, stride = advance(x, i * step + column), step
            ahead = advance(source, following)
            if column + lanes > limit:
                for r in range(height):
                    v = load_first(advance(source, r * step), limit - column, lowest)
                    store(advance(edge, r * lanes), v)
                source, stride, ahead = edge, lanes, edge
            a = advance(sums, column - left)
            b, c = advance(a, size), advance(a, 2 * size)
            top, count, rest = add_block(source, stride, height, ahead, load(a), load(b), load(c))
            store(a, top)
            store(b, count)
            store(c, rest)


@helper
def reduce_piece(job, x, first, stop, left, right, sums, edge):
    """Leave maximum, count and rest of columns [left, right) of some rows in ``sums``."""
    lanes, size = lane_count(x), job.padded
    zero = splat(0.0, load(edge))
    lowest = splat(-math.inf, zero)
    for column in range(0, right - left, lanes):
        a = advance(sums, column)
        store(a, lowest)
        store(advance(a, size), zero)
        store(advance(a, 2 * size), zero)
    full = min(stop, job.total // job.period)
    for ragged in range(2):  # one call to compile; the last row may end early
        start, rows, limit = first, full - first, job.period
        if ragged == 1:
            start, rows, limit = full, stop - full, job.total - full * job.period
        add_rows(job, advance(x, start * job.period), rows, left, right, limit, sums, edge)


@helper
def widen(sums, size, n, wide, wide_size):
    """Copy sums of n columns to where float64 is summed."""
    for k in range(3):
        for i in range(0, n, LANES_64):
            store(advance(wide, k * wide_size + i), load_double(advance(sums, k * size + i)))


@helper
def load_sums(p, size):
    return load(p), load(advance(p, size)), load(advance(p, 2 * size))


@helper
def merge_into(p, other, size):
    """Merge one vector of sums with another."""
    m, count, rest = load_sums(p, size)
    other_m, other_count, other_rest = load_sums(other, size)
    m, count, rest = merge(m, count, rest, other_m, other_count, other_rest)
    store(p, m)
    store(advance(p, size), count)
    store(advance(p, 2 * size), rest)


@helper
def fold(job, wide):
    """Merge the sums of the rows that were read as one: halves, until one row is left."""
    width = job.period
    while width > job.inner:
        width //= 2
        for i in range(0, width, LANES_64):
            merge_into(advance(wide, i), advance(wide, width + i), job.padded)


@helper
def finish_columns(job, wide, n_parts, n, table):
    """Merge the parts of n columns' sums; leave shifts and factors, or logarithms, in ``table``.

    softmax = exp(x - shift)·factor; log_softmax = x - shift - factor; logsumexp = factor.
    """
    size = job.padded
    row = 3 * size
    for i in range(0, n, LANES_64):
        top, count, rest = load_sums(advance(wide, i), size)
        for part in range(1, n_parts):
            other, other_count, other_rest = load_sums(advance(wide, part * row + i), size)
            top, count, rest = merge(top, count, rest, other, other_count, other_rest)
        shift = finite_shift(top)
        if job.mode == SOFTMAX:
            # SciPy's pattern: a column with an infinite maximum is NaN throughout.
            factor = splat(1.0, top) / (count + rest) + (top - top)
        else:
            factor = log_of_sum(count, rest)
            if job.mode == LOGSUMEXP:
                factor = top + factor
        store_narrow(advance(table, i), shift)
        store_narrow(advance(table, size + i), factor)
