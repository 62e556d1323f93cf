"""Rows of few logits, worked on as they lie, one behind another.

The vectors of exp and of results are the cache lines of the results, wherever in a row those begin:
no lane is empty, and nothing is moved. What belongs to a row is spread over the lanes of its logits
by a permutation. Only maxima and sums are taken row by row, of as many rows at once as a vector has
lanes; to transpose the rows there and back took twice as long as all of this.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba.extending import register_jitable

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.modes import GRADIENT, LOG_SOFTMAX, LOGSUMEXP, LOSS, SOFTMAX
from fastsoftmax._kernels.rows.few_losses import clear_targets, prepare_targets, take_losses
from fastsoftmax._kernels.rows.few_rows import (
    fill_table,
    keep_last,
    rotate,
    spread,
    take_maxima,
    take_sums,
)
from fastsoftmax._kernels.softmax.losses import N_STATISTICS
from fastsoftmax._kernels.vector.elementary import exp, log
from fastsoftmax._kernels.vector.lanes import count_lanes
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_int64_pointer,
    as_pointer,
    fma,
    lane_count,
    load,
    load_first,
    misalignment,
    prefetch_near,
    select,
    splat,
    store,
    store_first,
    stream,
)
from fastsoftmax._kernels.vector.squares import (
    add_rows,
    load_row_starts,
    ones_where_zero,
    sums_of_rows,
)

# Vectors of logits of a block: all that its steps leave to each other stays in L1, and every step
# is long enough to hide the latencies at its end.
BLOCK_VECTORS = 96
# Elements ahead of those exponentiated.
AHEAD = 2048


# What is kept of a block's logits besides their exp: the gaps to the maximum, or those and no exp
# of the maximum itself.
NOTHING, GAPS, TOPLESS = 0, 1, 2
N_ELEMENTWISE = 5


class Room(NamedTuple):
    """A block's part of the scratch, which its steps `take_…` fill."""

    stride: int  # elements from one of the statistics of the rows to the next: the six that follow
    maxima: Any
    sums: Any
    gap: Any  # between the maximum and the targets' logits
    scales: Any  # of the targets in the gradient, first the weights
    amount: Any  # Σ of the targets
    factors: Any  # of exp; or logarithms
    e: Any
    gaps: Any
    t: Any  # targets
    floors: Any  # of the targets, a block of them
    peaks: Any
    table: tuple[Any, Any]


@register_jitable
def few_classes_scratch(n, lanes):
    """Elements of scratch that `run_few_classes` needs."""
    rows = max(BLOCK_VECTORS // n, 1) * lanes
    size = rows * n + 2 * lanes
    return (
        lanes + N_STATISTICS * (rows + 2 * lanes) + (N_ELEMENTWISE + 1) * size + 2 * size // lanes
    )


# --------------------------------------------------------------------------------- steps of a block


@inlined
def exp_of(gap, e, gaps, kept):
    """Store exp(gap), and the gap; TOPLESS, 0 for the maximum: return how many are it."""
    if kept != NOTHING:
        store(gaps, gap)
    if kept != TOPLESS:
        store(e, exp(gap))
        return 0
    zero = splat(0.0, gap)
    top = gap == zero
    store(e, select(top, zero, exp(gap)))
    return count_lanes(top)


@helper
def take_exp(x, before, first_block, n, kept, room):
    """Exponentiate the gaps of n elements to their rows' maxima; see `exp_of`.

    Vectors begin ``before`` elements ahead of x, with those of another block; of the first block
    they are not ours to read.
    """
    lanes, lowest, table = lane_count(room.e), splat(-math.inf, load(room.e)), room.table
    x, e, gaps = advance(x, -before), advance(room.e, -before), advance(room.gaps, -before)
    tops, start, end = 0, 0, before + n
    if before > 0 and first_block:
        ours = load_first(advance(x, before), min(lanes - before, n), lowest)
        gap = rotate(ours, lanes - before) - spread(room.maxima, 0, table)
        tops, start = exp_of(gap, e, gaps, kept), lanes
    elif before > 0:  # counted there already
        gap = load_first(x, before, lowest) - spread(room.maxima, 0, table)
        tops = -count_lanes(gap == splat(0.0, gap))
    whole = max(end // lanes * lanes, start)
    for i in range(start, whole, lanes):
        prefetch_near(advance(x, i + AHEAD))
        gap = load(advance(x, i)) - spread(room.maxima, i, table)
        tops += exp_of(gap, advance(e, i), advance(gaps, i), kept)
    if whole < end:
        ours = load_first(advance(x, whole), end - whole, lowest)
        gap = ours - spread(room.maxima, whole, table)
        tops += exp_of(gap, advance(e, whole), advance(gaps, whole), kept)
    return tops


@helper
def take_reciprocals(rows, room):
    """One over the sums."""
    lanes, one = lane_count(room.sums), splat(1.0, load(room.sums))
    for r in range(0, rows, lanes):
        store(advance(room.factors, r), one / load(advance(room.sums, r)))


@helper
def count_zeros(gaps, n, like):
    """How many zeros each row has, of a vector of rows."""
    lanes, one = lane_count(gaps), splat(1.0, like)
    counts = ones_where_zero(load_row_starts(gaps, n, n, one))
    for k in range(lanes, n, lanes):
        part = load_row_starts(advance(gaps, k), n, n - k, one)
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
def take_logs(x, n, rows, tops, room):
    """Ln(how many logits are the maximum + Σ exp of the others)."""
    lanes, zero = lane_count(room.sums), splat(0.0, load(room.sums))
    one, slope, start = splat(1.0, zero), splat(-0.5, zero), splat(1.5, zero)
    odd = False  # a NaN, or an infinite maximum, whose gap is none
    for r in range(0, rows, lanes):
        rest = load(advance(room.sums, r))
        odd = odd or count_lanes(rest == rest) < lanes  # behind the last row, too: no harm
    for r in range(0, rows, lanes):
        rest, count, logs = load(advance(room.sums, r)), one, advance(room.factors, r)
        if odd or tops != rows:  # else each row has one maximum
            count = count_zeros(advance(room.gaps, r * n), n, count)
        total = rest + count
        # What was lost, over the total: for that a line through 1 will do, since a logarithm that
        # is not small has digits enough without.
        lost = select(total < one + one, rest - (total - one), zero)
        store(logs, log(total) + lost * fma(slope, total, start))
        if odd:
            for i in range(min(lanes, rows - r)):
                m = room.maxima[r + i]
                if abs(m) == math.inf:
                    logs[i] = log_where_infinite(advance(x, (r + i) * n), n, m)


@inlined
def result(mode, i, e, other, room):
    """Results of a vector: e·factor, for logarithms gap - factor, or e·factor + target·scale."""
    ours = spread(room.factors, i, room.table)
    if mode == SOFTMAX:
        return load(advance(e, i)) * ours
    if mode != GRADIENT:
        return load(advance(other, i)) - ours
    zero = splat(0.0, ours)
    value = select(ours == zero, zero, load(advance(e, i)))  # whatever e is
    return fma(load(advance(other, i)), spread(room.scales, i, room.table), value * ours)


@helper
def write_results(job, before, first_block, last_block, n, room, out):
    """Results of n elements; the rest of a line that no block ends with is left to the next."""
    lanes, mode, streamed = lane_count(out), job.mode, job.streamed
    e, out = advance(room.e, -before), advance(out, -before)
    other = advance(room.t if mode == GRADIENT else room.gaps, -before)
    start, end = 0, before + n
    if before > 0 and first_block:
        value = rotate(result(mode, 0, e, other, room), before)
        store_first(advance(out, before), min(lanes - before, n), value)
        start = lanes
    whole = max(end // lanes * lanes, start)
    for i in range(start, whole, lanes):
        value = result(mode, i, e, other, room)
        if streamed:
            stream(advance(out, i), value)
        else:
            store(advance(out, i), value)
    if last_block and whole < end:
        store_first(advance(out, whole), end - whole, result(mode, whole, e, other, room))


@helper
def write_logsumexp(rows, room, out):
    lanes = lane_count(out)
    for r in range(0, rows, lanes):
        value = load(advance(room.maxima, r)) + load(advance(room.factors, r))
        store_first(advance(out, r), rows - r, value)


# ---------------------------------------------------------------------------------------- all of it


@helper
def lay_out(n, step, scratch):
    """Divide the scratch of a block: all but the tables have a vector to spare on both sides."""
    lanes = lane_count(scratch)
    stride, size = step + 2 * lanes, step * n + 2 * lanes
    statistics = advance(scratch, lanes)
    e = advance(statistics, N_STATISTICS * stride)
    places = advance(e, N_ELEMENTWISE * size - lanes)
    return Room(
        stride, statistics, advance(statistics, stride), advance(statistics, 2 * stride),
        advance(statistics, 3 * stride), advance(statistics, 4 * stride),
        advance(statistics, 5 * stride), e, advance(e, size), advance(e, 2 * size),
        advance(e, 3 * size), advance(e, 4 * size),
        (places, as_int64_pointer(advance(places, size))),
    )  # fmt: skip


@helper
def run_few_classes(job, terms, first, stop, scratch):
    """What the mode says of the rows from ``first`` up to ``stop``; the loss if there are terms.

    Where results are streamed, vectors begin where lines do: the first line of a block has some
    elements ``before`` it, of the block before, which the first block must not touch.
    """
    lanes, n, mode, like = lane_count(scratch), job.n, job.mode, load(scratch)
    step, loss = max(BLOCK_VECTORS // n, 1) * lanes, 0.0
    room = lay_out(n, step, scratch)
    out, before = as_pointer(job.out, like), 0
    if job.streamed:
        before = (lanes - misalignment(advance(out, first * n))) % lanes
    most = min(step, stop - first)
    fill_table(n, before, most * n // lanes + 2, room.table)
    kept = TOPLESS if mode == LOG_SOFTMAX or mode == LOGSUMEXP else NOTHING
    if terms is not None:
        prepare_targets(terms, n, most, room)
        kept = GAPS if terms.soft else NOTHING
    for start in range(first, stop, step):
        rows, first_block = min(step, stop - start), start == first
        x = advance(as_pointer(job.x, like), start * n)
        take_maxima(x, n, rows, room.maxima)
        tops = take_exp(x, before, first_block, rows * n, kept, room)
        take_sums(room.e, n, rows, room.sums)
        if terms is not None:
            loss += take_losses(job, terms, start, rows, x, room)
        elif mode == SOFTMAX:
            take_reciprocals(rows, room)
        else:
            take_logs(x, n, rows, tops, room)
        if mode == LOGSUMEXP:
            write_logsumexp(rows, room, advance(out, start))
        if mode != LOSS and mode != LOGSUMEXP:
            target = advance(out, start * n)
            write_results(job, before, first_block, start + rows == stop, rows * n, room, target)
            keep_last(room.maxima, rows)
            keep_last(room.factors, rows)
        if terms is not None:
            keep_last(room.scales, rows)
            keep_last(room.t, rows * n)
            clear_targets(terms, start, rows, n, room)
    return loss
