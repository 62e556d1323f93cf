"""Rows of few logits, worked on as they lie, one row behind another.

Vectors of exp and of results begin and end anywhere in a row, so that no lane is empty and results
are whole cache lines. Only maxima and sums are taken row by row, of as many rows at once as a
vector has lanes. What belongs to a row is spread over the lanes of its logits by a permutation.
"""

from __future__ import annotations

import math

from fastsoftmax._kernels.elementary import exp, log
from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.modes import LOGSUMEXP, SOFTMAX
from fastsoftmax._kernels.rows import maximum
from fastsoftmax._kernels.simd import (
    advance,
    as_int64_pointer,
    as_pointer,
    count_lanes,
    fma,
    integer_bits,
    lane_count,
    lane_numbers,
    load,
    load_first,
    max_lanes,
    misalignment,
    permute,
    prefetch,
    select,
    splat,
    store,
    store_first,
    stream,
)
from fastsoftmax._kernels.tiles import (
    add_rows,
    larger_rows,
    largest_of_rows,
    load_columns,
    ones_where_zero,
    sums_of_rows,
)

# Vectors of logits of a block: what one step leaves to the next stays in L1, and each step is long
# enough to hide the latencies at its end.
BLOCK_VECTORS = 96
AHEAD = 2048


# ---------------------------------------------------------- what belongs to a row, over its elements


@helper
def fill_table(n, begin, vectors, table):
    """Which rows so many vectors of elements belong to, the first of them at element ``begin``.

    Of each vector the row of its first element, and how many rows behind it the others are.
    """
    places, first_rows = table
    lanes, like = lane_count(places), load(places)
    share, row = splat(1.0 / n, like), 0
    while begin < 0:
        begin, row = begin + n, row - 1
    for v in range(min(n, vectors)):
        first_rows[v] = row
        position = lane_numbers(like) + splat(begin + 0.5, like)
        store(advance(places, v * lanes), integer_bits(position * share))
        begin += lanes
        while begin >= n:
            begin, row = begin - n, row + 1
    for v in range(n, vectors):  # n vectors are as many rows as a vector has lanes
        first_rows[v] = first_rows[v - n] + lanes
        store(advance(places, v * lanes), load(advance(places, (v - n) * lanes)))


@inlined
def spread(values, i, table):
    """The rows' values where the vector of elements at i has theirs."""
    places, first_rows = table
    these = load(advance(values, first_rows[i // lane_count(values)]))
    return permute(these, load(advance(places, i)))


# --------------------------------------------------------------------------------- steps of a block


@helper
def row_maximum(x, n):
    lanes, lowest = lane_count(x), splat(-math.inf, load(x))
    top = lowest
    for k in range(0, n, lanes):
        top = maximum(load_first(advance(x, k), n - k, lowest), top)
    return max_lanes(top)


@helper
def take_maxima(x, n, rows, maxima):
    """maxima[r] = max_k x[r, k]."""
    lanes, lowest = lane_count(maxima), splat(-math.inf, load(maxima))
    whole = rows // lanes * lanes
    for r in range(0, whole, lanes):
        row = advance(x, r * n)
        tops = load_columns(row, n, n, lowest)
        for k in range(lanes, n, lanes):
            tops = larger_rows(load_columns(advance(row, k), n, n - k, lowest), tops)
        store(advance(maxima, r), largest_of_rows(tops))
    for r in range(whole, rows):  # there may be nothing behind them
        maxima[r] = row_maximum(advance(x, r * n), n)


@inlined
def rotate(v, by):
    """v[i + by] in lane i, the first lanes following the last."""
    return permute(v, integer_bits(lane_numbers(v) + splat(by, v)))


@inlined
def load_line(x, foreign, lowest):
    """The line at x whose first elements are not ours to read: -inf instead."""
    lanes = lane_count(x)
    ours = load_first(advance(x, foreign), lanes - foreign, lowest)
    return rotate(ours, lanes - foreign)


@helper
def take_exp(x, foreign, elements, maxima, table, e):
    """e = exp(x - maxima), element by element."""
    lanes, start = lane_count(e), 0
    lowest = splat(-math.inf, load(e))
    if foreign > 0:
        value = load_line(x, foreign, lowest)
        store(e, exp(value - spread(maxima, 0, table)))
        start = lanes
    whole = elements // lanes * lanes
    for i in range(start, whole, lanes):
        prefetch(advance(x, i + AHEAD))
        store(advance(e, i), exp(load(advance(x, i)) - spread(maxima, i, table)))
    if whole < elements:
        value = load_first(advance(x, whole), elements - whole, lowest)
        store(advance(e, whole), exp(value - spread(maxima, whole, table)))


@inlined
def part(gap, e, gaps):
    """What `take_exp_and_gaps` does with a vector."""
    zero = splat(0.0, gap)
    top = gap == zero
    store(gaps, gap)
    store(e, select(top, zero, exp(gap)))
    return count_lanes(top)


@helper
def take_exp_and_gaps(x, foreign, before, elements, maxima, table, e, gaps):
    """gaps = x - maxima, e = exp(gaps) or 0 for the maximum; return how many are the maximum."""
    lanes, tops, start = lane_count(e), 0, 0
    lowest = splat(-math.inf, load(e))
    if foreign > 0:
        gap = load_line(x, foreign, lowest) - spread(maxima, 0, table)
        tops = part(gap, e, gaps)
        start = lanes
    elif before > 0:  # counted with their own block
        gap = load_first(x, before, lowest) - spread(maxima, 0, table)
        tops = -count_lanes(gap == splat(0.0, gap))
    whole = elements // lanes * lanes
    for i in range(start, whole, lanes):
        prefetch(advance(x, i + AHEAD))
        gap = load(advance(x, i)) - spread(maxima, i, table)
        tops += part(gap, advance(e, i), advance(gaps, i))
    if whole < elements:
        gap = load_first(advance(x, whole), elements - whole, lowest) - spread(maxima, whole, table)
        tops += part(gap, advance(e, whole), advance(gaps, whole))
    return tops


@helper
def take_sums(e, n, rows, sums):
    """sums[r] = Σ_k e[r, k], of whole vectors of rows."""
    lanes, zero = lane_count(sums), splat(0.0, load(sums))
    for r in range(0, rows, lanes):
        row = advance(e, r * n)
        totals = load_columns(row, n, n, zero)
        for k in range(lanes, n, lanes):
            totals = add_rows(load_columns(advance(row, k), n, n - k, zero), totals)
        store(advance(sums, r), sums_of_rows(totals))


@helper
def take_reciprocals(rows, sums):
    lanes, one = lane_count(sums), splat(1.0, load(sums))
    for r in range(0, rows, lanes):
        p = advance(sums, r)
        store(p, one / load(p))


@helper
def log_where_infinite(x, n, m):
    """What is ln Σ exp(x - m) as m goes to infinity."""
    for k in range(n):
        if x[k] != x[k]:
            return x[k]
    return 0.0 if m > 0.0 else m


@helper
def count_tops(gaps, n, maximum):
    """How many logits are the maximum, of a vector of rows."""
    lanes, one = lane_count(gaps), splat(1.0, load(gaps))
    counts = ones_where_zero(load_columns(gaps, n, n, one))
    for k in range(lanes, n, lanes):
        part = load_columns(advance(gaps, k), n, n - k, one)
        counts = add_rows(ones_where_zero(part), counts)
    return sums_of_rows(counts)


@helper
def take_logs(x, gaps, n, rows, maxima, tops, sums):
    """sums = ln(how many are the maximum + Σ exp of the others)."""
    lanes, zero = lane_count(sums), splat(0.0, load(sums))
    one, half, more = splat(1.0, zero), splat(-0.5, zero), splat(1.5, zero)
    for r in range(0, rows, lanes):
        rest, count = load(advance(sums, r)), one
        # NaN, or an infinite maximum
        odd = count_lanes(rest == rest) < lanes
        if tops != rows or odd:
            count = count_tops(advance(gaps, r * n), n, count)
        total = rest + count
        # What was lost, over the total. Where that is 2 or more, its logarithm is not small.
        lost = select(total < one + one, rest - (total - one), zero)
        store(advance(sums, r), log(total) + lost * fma(half, total, more))
        if odd:
            for i in range(r, min(r + lanes, rows)):
                if abs(maxima[i]) == math.inf:
                    sums[i] = log_where_infinite(advance(x, i * n), n, maxima[i])


# ------------------------------------------------------------------------------------------ results


@inlined
def result(value, sums, i, table, soft):
    """Results of a vector of exp, or of gaps."""
    ours = spread(sums, i, table)
    return value * ours if soft else value - ours


@helper
def write_results(source, foreign, stop, sums, table, soft, streamed, last, out):
    """Results of elements up to ``stop`` in vectors from ``begin`` on, where the table begins.

    What is no whole vector at the end is left to the next block, but of the last one.
    """
    lanes, start = lane_count(out), 0
    if foreign > 0:  # of a line that is shared with other rows
        value = result(load(source), sums, 0, table, soft)
        store_first(advance(out, foreign), lanes - foreign, rotate(value, foreign))
        start = lanes
    whole = stop // lanes * lanes
    for i in range(start, whole, lanes):
        value = result(load(advance(source, i)), sums, i, table, soft)
        if streamed:
            stream(advance(out, i), value)
        else:
            store(advance(out, i), value)
    if last and whole < stop:
        value = result(load(advance(source, whole)), sums, whole, table, soft)
        store_first(advance(out, whole), stop - whole, value)


@inlined
def keep_last(p, n):
    """Lay the last vector of n values in front of them: the next block's first line needs it."""
    lanes = lane_count(p)
    store(advance(p, -lanes), load(advance(p, n - lanes)))


@helper
def run_few_classes(job, first, stop, scratch):
    """Softmax, or what the mode says, of the rows from ``first`` up to ``stop``."""
    lanes, n, like = lane_count(scratch), job.n, load(scratch)
    step, soft = max(BLOCK_VECTORS // n, 1) * lanes, job.mode == SOFTMAX
    maxima = advance(scratch, lanes)
    sums = advance(maxima, step + 2 * lanes)
    e = advance(sums, step + 2 * lanes)
    gaps = advance(e, step * n + 2 * lanes)
    places = advance(gaps, step * n + lanes)
    room = (step * n // lanes + 2) * lanes
    table = places, as_int64_pointer(advance(places, room))
    out = as_pointer(job.out, like)
    # A line at the border of two blocks is worked on with both.
    before = 0
    if job.streamed:
        before = (lanes - misalignment(advance(out, first * n))) % lanes
    fill_table(n, -before, min(step, stop - first) * n // lanes + 2, table)
    foreign = before
    for start in range(first, stop, step):
        rows = min(step, stop - start)
        x = advance(as_pointer(job.x, like), start * n)
        take_maxima(x, n, rows, maxima)
        line, elements = advance(x, -before), rows * n + before
        if soft:
            take_exp(line, foreign, elements, maxima, table, advance(e, -before))
            take_sums(e, n, rows, sums)
            take_reciprocals(rows, sums)
        else:
            tops = take_exp_and_gaps(line, foreign, before, elements, maxima, table, advance(e, -before), advance(gaps, -before))
            take_sums(e, n, rows, sums)
            take_logs(x, gaps, n, rows, maxima, tops, sums)
        if job.mode == LOGSUMEXP:
            for r in range(0, rows, lanes):
                value = load(advance(maxima, r)) + load(advance(sums, r))
                store_first(advance(out, start + r), rows - r, value)
            continue
        source = advance(e if soft else gaps, -before)
        last = start + rows == stop
        write_results(source, foreign, elements, sums, table, soft, job.streamed, last, advance(out, start * n - before))
        keep_last(maxima, rows)
        keep_last(sums, rows)
        foreign = 0
