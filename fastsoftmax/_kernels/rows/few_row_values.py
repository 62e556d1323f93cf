"""From many short rows of logits to one value a row, and from such values back to the logits.

Maxima and sums are taken of as many rows at once as a vector has lanes. `spread` puts values of
rows into the lanes of their logits by one permutation, wherever in a row a vector begins.
"""

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
    for r in range(whole, rows):  # one by one: the array may end with them
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


@helper
def fill_table(n, before, vectors, table):
    """Find the row of every logit in so many vectors, for `spread`.

    The first vector begins ``before`` logits ahead of row 0. Of each vector the table has the row
    of its first logit, and how many rows farther each of its logits is: if the first is in column
    c, the one in lane j is floor((c + j) / n) rows farther. The quotient is taken of c + j + ½, so
    that no rounding reaches the next integer. The pattern repeats after n vectors, which hold as
    many rows as a vector has lanes.
    """
    places, first_rows = table
    lanes, like = lane_count(places), load(places)
    reciprocal = splat(1.0 / n, like)
    column, row = -before, 0
    while column < 0:
        column, row = column + n, row - 1
    for v in range(min(n, vectors)):
        first_rows[v] = row
        columns = lane_numbers(like) + splat(column + 0.5, like)
        store(advance(places, v * lanes), integer_bits(columns * reciprocal))
        column += lanes
        while column >= n:
            column, row = column - n, row + 1
    for v in range(n, vectors):
        first_rows[v] = first_rows[v - n] + lanes
        store(advance(places, v * lanes), load(advance(places, (v - n) * lanes)))


@inlined
def spread(values, i, table):
    """For each lane of the vector at logit i, the value of its row."""
    places, first_rows = table
    these = load(advance(values, first_rows[i // lane_count(values)]))
    return permute(these, load(advance(places, i)))


@inlined
def rotate(v, by):
    """v[i + by] in lane i, the first lanes following the last."""
    return permute(v, integer_bits(lane_numbers(v) + splat(by, v)))


@inlined
def keep_last(values, n):
    """Copy the last vector of n values to in front of them, where the next block looks for it."""
    lanes = lane_count(values)
    store(advance(values, -lanes), load(advance(values, n - lanes)))
