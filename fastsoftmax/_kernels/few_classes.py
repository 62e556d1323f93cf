"""Rows of few logits, worked on as they lie, one behind another.

The vectors of exp and of results are the cache lines of the results, wherever in a row those begin:
no lane is empty, and nothing is moved. What belongs to a row is spread over the lanes of its logits
by a permutation. Only maxima and sums are taken row by row, of as many rows at once as a vector has
lanes; to transpose the rows there and back took twice as long as all of this.
"""

from __future__ import annotations

import math

from numba.extending import register_jitable

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
    prefetch_near,
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

# Vectors of logits of a block: all that its steps leave to each other stays in L1, and every step
# is long enough to hide the latencies at its end.
BLOCK_VECTORS = 96
# Elements ahead of those exponentiated.
AHEAD = 2048


@register_jitable
def few_classes_scratch(n, lanes):
    """Elements of scratch that `run_few_classes` needs."""
    rows = max(BLOCK_VECTORS // n, 1) * lanes
    table = (rows * n // lanes + 2) * (lanes + 2)
    return 2 * (rows + 2 * lanes) + 2 * (rows * n + 2 * lanes) + table


# --------------------------------------------------------- what belongs to a row, over its elements


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
def exp_of(gap, e, gaps, soft):
    """Store exp(gap); or the gap and exp(gap) but 0 for the maximum: return how many are it."""
    if soft:
        store(e, exp(gap))
        return 0
    zero = splat(0.0, gap)
    top = gap == zero
    store(gaps, gap)
    store(e, select(top, zero, exp(gap)))
    return count_lanes(top)


@helper
def take_exp(x, foreign, before, end, maxima, table, e, gaps, soft):
    """Exponentiate: e = exp(x - maxima) of elements up to ``end``.

    For logarithms gaps = x - maxima, and e = 0 where that is 0: return where it is how often. Of
    the first vector ``foreign`` elements are not ours to read, and ``before`` another block's.
    """
    lanes, lowest = lane_count(e), splat(-math.inf, load(e))
    tops, start = 0, 0
    if foreign > 0:
        ours = load_first(advance(x, foreign), lanes - foreign, lowest)
        gap = rotate(ours, lanes - foreign) - spread(maxima, 0, table)
        tops, start = exp_of(gap, e, gaps, soft), lanes
    elif before > 0:
        gap = load_first(x, before, lowest) - spread(maxima, 0, table)
        tops = -count_lanes(gap == splat(0.0, gap))
    whole = end // lanes * lanes
    for i in range(start, whole, lanes):
        prefetch_near(advance(x, i + AHEAD))
        gap = load(advance(x, i)) - spread(maxima, i, table)
        tops += exp_of(gap, advance(e, i), advance(gaps, i), soft)
    if whole < end:
        ours = load_first(advance(x, whole), end - whole, lowest)
        gap = ours - spread(maxima, whole, table)
        tops += exp_of(gap, advance(e, whole), advance(gaps, whole), soft)
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
def count_zeros(gaps, n, like):
    """How many zeros each row has, of a vector of rows."""
    lanes, one = lane_count(gaps), splat(1.0, like)
    counts = ones_where_zero(load_columns(gaps, n, n, one))
    for k in range(lanes, n, lanes):
        part = load_columns(advance(gaps, k), n, n - k, one)
        counts = add_rows(ones_where_zero(part), counts)
    return sums_of_rows(counts)


@helper
def log_where_infinite(x, n, m):
    """Ln Σ exp(x - m) for an infinite maximum m."""
    for k in range(n):
        if x[k] != x[k]:
            return x[k]
    return 0.0 if m > 0.0 else m


@helper
def take_logs(x, gaps, n, rows, maxima, tops, sums):
    """Turn Σ exp(gap) of all but the maximum into ln(how many are the maximum + it)."""
    lanes, zero = lane_count(sums), splat(0.0, load(sums))
    one, slope, start = splat(1.0, zero), splat(-0.5, zero), splat(1.5, zero)
    for r in range(0, rows, lanes):
        rest, count = load(advance(sums, r)), one
        odd = count_lanes(rest == rest) < lanes  # NaN, or an infinite maximum
        if tops != rows or odd:
            count = count_zeros(advance(gaps, r * n), n, count)
        total = rest + count
        # What was lost, over the total: for that a line through 1 will do, since a logarithm that
        # is not small has digits enough without.
        lost = select(total < one + one, rest - (total - one), zero)
        store(advance(sums, r), log(total) + lost * fma(slope, total, start))
        if odd:
            for i in range(r, min(r + lanes, rows)):
                if abs(maxima[i]) == math.inf:
                    sums[i] = log_where_infinite(advance(x, i * n), n, maxima[i])


@inlined
def result(source, i, sums, table, soft):
    """A vector of results of exp, or of gaps."""
    value, ours = load(advance(source, i)), spread(sums, i, table)
    return value * ours if soft else value - ours


@helper
def write_results(source, foreign, end, last, sums, table, soft, streamed, out):
    """Results of elements up to ``end``; if there is another block, it writes the last line."""
    lanes, start = lane_count(out), 0
    if foreign > 0:
        value = rotate(result(source, 0, sums, table, soft), foreign)
        store_first(advance(out, foreign), lanes - foreign, value)
        start = lanes
    whole = end // lanes * lanes
    for i in range(start, whole, lanes):
        value = result(source, i, sums, table, soft)
        if streamed:
            stream(advance(out, i), value)
        else:
            store(advance(out, i), value)
    if last and whole < end:
        store_first(advance(out, whole), end - whole, result(source, whole, sums, table, soft))


@helper
def write_logsumexp(maxima, sums, rows, out):
    lanes = lane_count(out)
    for r in range(0, rows, lanes):
        value = load(advance(maxima, r)) + load(advance(sums, r))
        store_first(advance(out, r), rows - r, value)


# ---------------------------------------------------------------------------------------- all of it


@inlined
def keep_last(values, n):
    """Lay the last vector of n values in front of them: the next block's first line needs it."""
    lanes = lane_count(values)
    store(advance(values, -lanes), load(advance(values, n - lanes)))


@helper
def run_few_classes(job, first, stop, scratch):
    """Softmax, or what the mode says, of the rows from ``first`` up to ``stop``.

    Where results are streamed, vectors begin where lines do: the first line of a block has some
    elements ``before`` it, of the block before, which the first block must not touch. Scratch holds
    maxima and sums of the rows, exp and gaps of the elements, each with a vector to spare on both
    sides, and the table.
    """
    lanes, n, like = lane_count(scratch), job.n, load(scratch)
    step, soft = max(BLOCK_VECTORS // n, 1) * lanes, job.mode == SOFTMAX
    maxima = advance(scratch, lanes)
    sums = advance(maxima, step + 2 * lanes)
    e = advance(sums, step + 2 * lanes)
    gaps = advance(e, step * n + 2 * lanes)
    places = advance(gaps, step * n + lanes)
    table = places, as_int64_pointer(advance(places, (step * n // lanes + 2) * lanes))
    out, before = as_pointer(job.out, like), 0
    if job.streamed:
        before = (lanes - misalignment(advance(out, first * n))) % lanes
    fill_table(n, before, min(step, stop - first) * n // lanes + 2, table)
    e_line, gap_line, foreign = advance(e, -before), advance(gaps, -before), before
    for start in range(first, stop, step):
        rows, last = min(step, stop - start), start + step >= stop
        x, end = advance(as_pointer(job.x, like), start * n), before + rows * n
        line = advance(x, -before)
        take_maxima(x, n, rows, maxima)
        tops = take_exp(line, foreign, before, end, maxima, table, e_line, gap_line, soft)
        take_sums(e, n, rows, sums)
        if soft:
            take_reciprocals(rows, sums)
        else:
            take_logs(x, gaps, n, rows, maxima, tops, sums)
        if job.mode == LOGSUMEXP:
            write_logsumexp(maxima, sums, rows, advance(out, start))
            continue
        source, target = e_line if soft else gap_line, advance(out, start * n - before)
        write_results(source, foreign, end, last, sums, table, soft, job.streamed, target)
        keep_last(maxima, rows)
        keep_last(sums, rows)
        foreign = 0
