"""Sums of columns: a maximum, how many logits equal it, and Σ exp of the others.

An area is summed in the dtype, a block of rows at a time, and areas are merged in float64. A block
is read twice, from L1 the second time, while the next one is prefetched: rows lie too far apart for
the hardware to do it. Sums lie in three rows of ``job.padded`` elements: maxima, counts, the rest.
"""

import math
from typing import NamedTuple

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
from fastsoftmax._kernels.vector.exp_log import exp
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    as_pointer,
    lane_count,
    load,
    load_double,
    load_first,
    prefetch,
    select,
    splat,
    store,
    store_first,
    store_narrow,
)


class Area(NamedTuple):
    """Rows [first, stop) of columns [left, right) of matrix ``outer``: a strip of a chunk."""

    outer: int
    first: int
    stop: int
    left: int
    right: int


@helper
def load_sums(p, size):
    """A vector of columns' maxima, counts and rests, ``size`` elements apart."""
    return load(p), load(advance(p, size)), load(advance(p, 2 * size))


@helper
def store_sums(p, size, sums):
    """Store what `load_sums` loads."""
    top, count, rest = sums
    store(p, top)
    store(advance(p, size), count)
    store(advance(p, 2 * size), rest)


@helper
def add_block(source, step, rows, ahead, sums):
    """Add a block of rows to the sums of one vector of columns; prefetch those at ``ahead``."""
    top, count, rest = sums
    zero = splat(0.0, top)
    m = maximum(maximum_over(source, rows, step), top)
    shift = finite_shift(m)
    risen = m > top
    rest = select(risen, (rest + count) * exp(top - shift), rest)
    count = select(risen, zero, count)
    subtotal = zero
    for i in range(rows):
        prefetch(advance(ahead, i * step))
        subtotal, count = add_exp(load(advance(source, i * step)), m, shift, subtotal, count)
    # -inf equals the maximum of a column of nothing but -inf, and still adds nothing.
    return m, select(shift == m, count, zero), rest + subtotal


@helper
def add_area(job, area, x, limit, sums, edge):
    """Add an area's rows, of ``limit`` columns each, to the sums of its columns.

    Vectors that hang over the last column are copied to ``edge`` first.
    """
    lanes, step, size = lane_count(x), job.period, job.padded
    lowest = splat(-math.inf, load(edge))
    for i in range(area.first, area.stop, job.block):
        height = min(job.block, area.stop - i)
        following = job.block * step
        if i + job.block >= area.stop:  # what comes next is the next strip
            following = job.strip - (i - area.first) * step if job.whole else 0
        for column in range(area.left, area.right, lanes):
            source, stride = advance(x, i * step + column), step
            ahead = advance(source, following)
            if column + lanes > limit:
                for r in range(height):
                    v = load_first(advance(source, r * step), limit - column, lowest)
                    store(advance(edge, r * lanes), v)
                source, stride, ahead = edge, lanes, edge
            own = advance(sums, column - area.left)
            store_sums(own, size, add_block(source, stride, height, ahead, load_sums(own, size)))


@helper
def sum_area(job, area, x, sums, edge):
    """Leave the sums of an area's columns in ``sums``."""
    lanes, size = lane_count(x), job.padded
    zero = splat(0.0, load(edge))
    lowest = splat(-math.inf, zero)
    for column in range(0, area.right - area.left, lanes):
        store_sums(advance(sums, column), size, (lowest, zero, zero))
    full = min(area.stop, job.total // job.period)
    for ragged in range(2):  # one call to compile; the last row may end early
        first, stop, limit = area.first, full, job.period
        if ragged == 1:
            first, stop, limit = full, area.stop, job.total - full * job.period
        rows = Area(area.outer, first, stop, area.left, area.right)
        add_area(job, rows, x, limit, sums, edge)


@helper
def widen(sums, size, n, wide, wide_size):
    """Copy the sums of n columns, in float64."""
    for k in range(3):
        for i in range(0, n, LANES_64):
            store(advance(wide, k * wide_size + i), load_double(advance(sums, k * size + i)))


@helper
def fold(job, wide):
    """Merge the sums of rows that were read as one: two halves, until one row is left."""
    width, size = job.period, job.padded
    while width > job.inner:
        width //= 2
        for i in range(0, width, LANES_64):
            sums, others = advance(wide, i), advance(wide, width + i)
            store_sums(sums, size, merge(*load_sums(sums, size), *load_sums(others, size)))


@helper
def finish_columns(job, wide, n_chunks, place, n, table):
    """Merge the sums of n columns in order of the chunks; leave shifts and factors in ``table``.

    softmax = exp(x - shift)·factor; log_softmax = x - shift - factor; logsumexp = factor, which is
    written to element ``place`` of the results.
    """
    size = job.padded
    for i in range(0, n, LANES_64):
        sums = load_sums(advance(wide, i), size)
        for chunk in range(1, n_chunks):
            sums = merge(*sums, *load_sums(advance(wide, chunk * 3 * size + i), size))
        top, count, rest = sums
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
    if job.mode == LOGSUMEXP:
        out, factors = advance(as_pointer(job.out, load(table)), place), advance(table, size)
        for i in range(0, n, lane_count(table)):
            store_first(advance(out, i), n - i, load(advance(factors, i)))
