"""What belongs to a row and its logits, of many rows that lie one behind another.

Down from logits to rows: the maxima and sums of as many rows at once as a vector has lanes. And up
again: a row's value in the lanes of its logits, wherever a vector begins.
"""

from __future__ import annotations

import math

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.softmax.loops import maximum_from
from fastsoftmax._kernels.vector.lanes import integer_bits, lane_numbers, max_lanes, permute
from fastsoftmax._kernels.vector.simd import advance, lane_count, load, splat, store
from fastsoftmax._kernels.vector.squares import (
    add_rows,
    larger_rows,
    largest_of_rows,
    load_row_starts,
    sums_of_rows,
)

# --------------------------------------------------------------------------------- maxima and sums


@helper
def take_maxima(x, n, rows, maxima):
    """maxima[r] = max_k x[r, k]."""
    lanes, lowest = lane_count(maxima), splat(-math.inf, load(maxima))
    whole = rows // lanes * lanes
    for r in range(0, whole, lanes):
        row = advance(x, r * n)
        tops = load_row_starts(row, n, n, lowest)
        for k in range(lanes, n, lanes):
            tops = larger_rows(load_row_starts(advance(row, k), n, n - k, lowest), tops)
        store(advance(maxima, r), largest_of_rows(tops))
    for r in range(whole, rows):  # there may be nothing behind them
        maxima[r] = max_lanes(maximum_from(0, advance(x, r * n), n))


@helper
def take_sums(e, n, rows, sums):
    """sums[r] = Σ_k e[r, k], of whole vectors of rows."""
    lanes, zero = lane_count(sums), splat(0.0, load(sums))
    for r in range(0, rows, lanes):
        row = advance(e, r * n)
        totals = load_row_starts(row, n, n, zero)
        for k in range(lanes, n, lanes):
            totals = add_rows(load_row_starts(advance(row, k), n, n - k, zero), totals)
        store(advance(sums, r), sums_of_rows(totals))


# --------------------------------------------------------------------------- from rows to elements


@helper
def fill_table(n, before, vectors, table):
    """Which rows so many vectors of elements belong to, the first from ``before`` elements back.

    Of each vector the row of its first element, and how many rows behind it the others are.
    """
    places, first_rows = table
    lanes, like = lane_count(places), load(places)
    share = splat(1.0 / n, like)
    column, row = -before, 0
    while column < 0:
        column, row = column + n, row - 1
    for v in range(min(n, vectors)):
        first_rows[v] = row
        columns = lane_numbers(like) + splat(column + 0.5, like)
        store(advance(places, v * lanes), integer_bits(columns * share))
        column += lanes
        while column >= n:
            column, row = column - n, row + 1
    for v in range(n, vectors):  # the same places, as many rows further on as a vector has lanes
        first_rows[v] = first_rows[v - n] + lanes
        store(advance(places, v * lanes), load(advance(places, (v - n) * lanes)))


@inlined
def spread(values, i, table):
    """The rows' values where the vector of elements at i has theirs."""
    places, first_rows = table
    these = load(advance(values, first_rows[i // lane_count(values)]))
    return permute(these, load(advance(places, i)))


@inlined
def rotate(v, by):
    """v[i + by] in lane i, the first lanes following the last."""
    return permute(v, integer_bits(lane_numbers(v) + splat(by, v)))


@inlined
def keep_last(values, n):
    """Lay the last vector of n values in front of them: the next block's first line needs it."""
    lanes = lane_count(values)
    store(advance(values, -lanes), load(advance(values, n - lanes)))
