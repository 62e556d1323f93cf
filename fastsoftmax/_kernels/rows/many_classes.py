"""Rows of many logits, lanes along the classes: three rows in flight.

One loop works on three neighbouring rows, so that memory is read and written all the time, and the
sums across lanes at the end of a row are waited for only once. In turn t

    row t        is read, and its maximum is taken;
    row t - 1    is exponentiated and summed; its exp is kept where results are made of it;
    row t - 2    is finished: its results are made of its exp, or of its logits, and written.

Row by row in three loops took 1.7 times as long in the cache, (64, 1000) in float32, and 1.2 to 1.4
times where three rows fit the last cache only, or none: (2000, 50000) in float64, (200, 500000) in
float32.

A worker's scratch holds in this order: exp of even rows, exp of odd rows (each of whole vectors,
with a vector to spare), two vectors for `FinishedRow.joint`, the numbers of even rows and of odd
ones, and for soft targets a row of logits and a row of targets.
"""

import math
from typing import Any, NamedTuple

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.modes import GRADIENT, LOG_SOFTMAX, LOGSUMEXP, LOSS, SOFTMAX
from fastsoftmax._kernels.rows.results import FinishedRow, put, write_head, write_rest
from fastsoftmax._kernels.softmax.loops import (
    CHAIN,
    add_exp,
    finite_shift,
    load_padded,
    log_of_sum,
    maximum,
    maximum_from,
    scale_less_target_over,
    scale_over,
    target_over,
)
from fastsoftmax._kernels.softmax.losses import label_of
from fastsoftmax._kernels.vector.exp_log import exp, log
from fastsoftmax._kernels.vector.lanes import lane, max_lanes, sum_lanes
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_float64_pointer,
    as_pointer,
    lane_count,
    load,
    misalignment,
    prefetch_near,
    select,
    splat,
    splat_double,
    store,
)

# The numbers of a row: its maximum, and those that make its results, see `FinishedRow`.
TOP, SHIFT, FACTOR, OFFSET, N_NUMBERS = 0, 1, 2, 3, 4
# How many elements ahead logits are prefetched.
AHEAD = 2048
# Where scale > SAFE and |factor| > SAFE·scale, scale / factor and its product with the factor are
# numbers that float32 holds.
SAFE = 1e-20


class Flight(NamedTuple):
    """The three rows that one loop works on."""

    coming: Any  # logits of the row whose maximum is taken
    x: Any  # logits of the row that is exponentiated
    m: Any  # its maximum in every lane
    e: Any  # where its exp is kept
    done: FinishedRow  # from the first whole vector of memory on
    streamed: bool


@inlined
def exp_in_flight(flight, start, stop, top, total):
    """Work on vectors ``start`` to ``stop`` of three rows, with exp kept in ``flight.e``.

    Returns the largest of the coming row and ``top``, lane by lane, and ``total`` + Σ exp.
    """
    coming, x, m, e, done, streamed = flight
    lanes = lane_count(e)
    for i in range(start * lanes, stop * lanes, lanes):
        top = maximum(load(advance(coming, i)), top)
        prefetch_near(advance(coming, i + AHEAD))
        value = exp(load(advance(x, i)) - m)
        store(advance(e, i), value)
        total = total + value
        put(advance(done.out, i), load(advance(done.source, i)) * done.factor, streamed)
    return top, total


@inlined
def sum_in_flight(flight, start, stop, top, total, count):
    """The same for logarithms: no exp is kept, and maxima are counted instead of summed."""
    coming, x, m, _, done, streamed = flight
    lanes, shift = lane_count(x), finite_shift(m)
    for i in range(start * lanes, stop * lanes, lanes):
        top = maximum(load(advance(coming, i)), top)
        prefetch_near(advance(coming, i + AHEAD))
        total, count = add_exp(load(advance(x, i)), m, shift, total, count)
        value = load(advance(done.source, i)) - done.shift + done.offset
        put(advance(done.out, i), value, streamed)
    return top, total, count


@inlined
def sum_alone(flight, start, stop, n, keeps, total, count):
    """Sum vectors of only the row in the middle, of n logits; ``keeps``: whether exp is kept."""
    x, m, e = flight.x, flight.m, flight.e
    lanes, shift = lane_count(e), finite_shift(m)
    for i in range(start * lanes, stop * lanes, lanes):
        v = load_padded(x, i, n)
        if keeps:
            value = exp(v - m)
            store(advance(e, i), value)
            total = total + value
        else:
            total, count = add_exp(v, m, shift, total, count)
    return total, count


@inlined
def sums_of_row(flight, together, n, keeps, top):
    """Sum a row of n logits, of which the first ``together`` vectors are in flight.

    Returns the largest of the coming row, Σ exp, and the count of maxima, lane by lane.
    """
    lanes, zero = lane_count(flight.e), splat(0.0, flight.m)
    vectors = (n + lanes - 1) // lanes
    total, count, lost = zero, zero, zero
    for start in range(0, vectors, CHAIN):
        stop = min(start + CHAIN, vectors)
        middle = max(min(together, stop), start)
        if keeps:
            top, subtotal = exp_in_flight(flight, start, middle, top, zero)
        else:
            top, subtotal, count = sum_in_flight(flight, start, middle, top, zero, count)
        subtotal, count = sum_alone(flight, middle, stop, n, keeps, subtotal, count)
        # What each addition loses is kept, or five million equal terms would lose 700 ULP.
        added = total + subtotal
        lost = lost + (subtotal - (added - total))
        total = added
    return top, total + select(lost == lost, lost, zero), count


# -------------------------------------------------------------------------------- the end of a row


@inlined
def end_softmax_row(job, total, count, numbers, out):
    """Find the numbers that make a row's results; the result of LOGSUMEXP goes to ``out``."""
    numbers[SHIFT], numbers[FACTOR], numbers[OFFSET] = 0.0, 1.0, -0.0
    if job.mode == SOFTMAX:
        numbers[FACTOR] = 1.0 / sum_lanes(total)
        return
    top = numbers[TOP]
    # -inf equals the maximum of a row of nothing but -inf, and still adds nothing.
    n_tops = float(sum_lanes(count)) if top > -math.inf else 0.0
    value = log_of_sum(splat_double(n_tops), splat_double(float(sum_lanes(total))))
    if job.mode == LOGSUMEXP:
        out[0] = top + lane(value, 0)
    else:
        numbers[SHIFT], numbers[OFFSET] = top, -lane(value, 0)


@inlined
def end_loss_row(job, terms, row, flight, total, numbers, spare):
    """Return a row's weighted loss; leave what makes its gradient in ``flight.e`` and ``numbers``.

    The letters are those of `fastsoftmax._kernels.softmax.losses`. The gradient is
    e·factor - scale·t with scale = s / denominator and factor = scale·(T + 2α·lse) / Σe.
    """
    x, e, n, like = flight.x, flight.e, job.n, total
    lanes = lane_count(e)
    vectors = (n + lanes - 1) // lanes
    weight = as_pointer(terms.weight, like)[row] if terms.weight != 0 else 1.0
    label, amount, top = 0, 1.0, numbers[TOP]
    t = advance(spare, vectors * lanes)
    if terms.soft:
        for i in range(0, n, lanes):
            store(advance(spare, i), load_padded(x, i, n))
        fill_target_row(terms, row, n, t, like)
        gaps, totals = target_over(spare, t, vectors, lanes, splat(top, like))
        gap, amount = float(sum_lanes(gaps)), float(sum_lanes(totals))
    else:
        label = label_of(terms, row, n)
        gap = float(top - x[label])
    sums = float(sum_lanes(total))
    log_sum = lane(log(splat_double(sums)), 0)
    loss = amount * log_sum + gap
    if terms.alpha != 0.0:
        lse = top + log_sum
        loss += terms.alpha * lse * lse
        amount += 2.0 * terms.alpha * lse
    loss = weight * loss if weight != 0.0 else 0.0
    if terms.row_losses != 0:
        as_float64_pointer(terms.row_losses)[row] = loss
    if job.mode == GRADIENT:
        scale = weight / job.denominator
        factor = scale * amount / sums if weight != 0.0 else 0.0
        numbers[SHIFT], numbers[FACTOR], numbers[OFFSET] = 0.0, 1.0, -0.0
        if terms.soft:
            factors, scales = splat(factor, like), splat(scale, like)
            scale_less_target_over(e, t, vectors, lanes, factors, scales)
        elif abs(factor) > SAFE * scale and scale > SAFE:
            # The label's e·factor - scale as (e - scale / factor)·factor: one sweep less.
            numbers[FACTOR] = factor
            e[label] -= scale / factor
        else:
            scale_over(e, vectors, lanes, splat(factor, like))
            e[label] -= scale
    return loss


@inlined
def fill_target_row(terms, row, n, t, like):
    """Lay out row ``row`` of t, zeros behind it up to whole vectors."""
    lanes = lane_count(t)
    peak, floor = as_pointer(terms.peak, like), as_pointer(terms.floor, like)
    for k in range(n):
        t[k] = floor[k]
    for k in range(n, (n + lanes - 1) // lanes * lanes):
        t[k] = 0.0
    if terms.targets == 0:
        label = label_of(terms, row, n)
        t[label] += peak[label]
    else:
        y = advance(as_pointer(terms.targets, like), row * n)
        for k in range(n):
            t[k] += peak[k] * y[k]


# ----------------------------------------------------------------------------------- rows in order


@inlined
def finished_row(source, numbers, out, joint):
    """Take a row's numbers into vectors."""
    like = load(joint)
    shift, factor = splat(numbers[SHIFT], like), splat(numbers[FACTOR], like)
    return FinishedRow(source, shift, factor, splat(numbers[OFFSET], like), out, joint)


@helper
def rows_in_flight(job, terms, first, rows, out, streamed, scratch, loss):
    """Write the results of some rows to ``out``; return ``loss``, with theirs if there are terms.

    How a row is summed does not depend on what is in flight with it, so its bits do not either.
    """
    lanes, n, like = lane_count(scratch), job.n, load(scratch)
    width = ((n + lanes - 1) // lanes + 1) * lanes
    joint, all_numbers = advance(scratch, 2 * width), advance(scratch, 2 * width + 2 * lanes)
    spare = advance(all_numbers, max(2 * lanes, 2 * N_NUMBERS))
    keeps = job.mode != LOG_SOFTMAX and job.mode != LOGSUMEXP
    writes = job.mode != LOSS and job.mode != LOGSUMEXP
    x = advance(as_pointer(job.x, like), first * n)
    for turn in range(rows + 2):
        here, past = turn - 1, turn - 2
        coming_numbers = advance(all_numbers, turn % 2 * N_NUMBERS)
        numbers = advance(all_numbers, here % 2 * N_NUMBERS)
        past_numbers = advance(all_numbers, past % 2 * N_NUMBERS)
        e, source = advance(scratch, here % 2 * width), advance(scratch, past % 2 * width)
        if job.mode == LOG_SOFTMAX:
            source = advance(x, past * n)
        # Where nothing is written, the loop replaces exp that nobody needs any more.
        target = advance(out, past * n) if writes else source
        begin = min(misalignment(target), n) if streamed else 0
        together = (n - begin) // lanes if 2 <= turn and turn < rows else 0
        coming, x_here, top = advance(x, turn * n), advance(x, here * n), splat(-math.inf, like)
        if turn < rows:
            top = maximum_from(together, coming, n)
            coming_numbers[TOP] = max_lanes(top)
        if 0 <= here and here < rows:
            done = finished_row(advance(source, begin), past_numbers, advance(target, begin), joint)
            flight = Flight(coming, x_here, splat(numbers[TOP], like), e, done, streamed)
            top, total, count = sums_of_row(flight, together, n, keeps, top)
            if terms is None:
                end_softmax_row(job, total, count, numbers, advance(out, here))
            else:
                loss += end_loss_row(job, terms, first + here, flight, total, numbers, spare)
        if together > 0:
            coming_numbers[TOP] = max_lanes(top)
        if writes and past >= 0:
            done = finished_row(source, past_numbers, target, joint)
            if begin > 0:  # a store of no lanes reads its line from memory all the same
                write_head(done, begin, past == 0)
            write_rest(done, begin + together * lanes, n, streamed, past == rows - 1)
    return loss
