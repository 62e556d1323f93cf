"""Rows of many logits, lanes along the classes: three rows in flight.

One loop takes the maximum of the row that comes, exponentiates the one before it and writes the
results of the one before that, so that memory is read and written all the time and the sums across
lanes at a row's end are waited for only once. Row by row in three loops took 1.7 times as long in
the cache, (64, 1000) in float32, and 1.2 to 1.4 times where three rows fit the last cache only, or
none: (2000, 50000) in float64, (200, 500000) in float32.
"""

from __future__ import annotations

import math

from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.modes import GRADIENT, LOG_SOFTMAX, LOGSUMEXP, LOSS, SOFTMAX
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
from fastsoftmax._kernels.vector.elementary import exp, log
from fastsoftmax._kernels.vector.lanes import lane, max_lanes, sum_lanes
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_float64_pointer,
    as_int64_pointer,
    as_pointer,
    fma,
    lane_count,
    load,
    misalignment,
    prefetch_near,
    splat,
    splat_double,
    store,
    store_first,
    stream,
)

# What is known of a row, twice: the row in work and the one that is written meanwhile. Where there
# is nothing to add, MORE is -0.0: +0.0 would change a -0.0.
TOP, SHIFT, FACTOR, MORE, N_KNOWN = 0, 1, 2, 3, 4
# Elements ahead of the row that comes.
AHEAD = 2048
SAFE = 1e-20


# Everything here is inlined by Numba: left to LLVM, rows of 160 took a fifth longer for the calls.

# ---------------------------------------------------------------- vectors of three rows at a time


@inlined
def result(v, scale):
    """A row's results from its exp, or from its logits: one operation changes nothing."""
    shift, factor, more = scale
    return fma(v - shift, factor, more)


@inlined
def exp_together(start, stop, coming, top, x, m, q, total, done, scale, out, streamed):
    """Vectors ``start`` to ``stop`` of three rows: a maximum, exp into ``q``, and results."""
    lanes = lane_count(q)
    shift, factor, more = scale
    for i in range(start * lanes, stop * lanes, lanes):
        top = maximum(load(advance(coming, i)), top)
        prefetch_near(advance(coming, i + AHEAD))
        e = exp(load(advance(x, i)) - m)
        store(advance(q, i), e)
        total = total + e
        value = load(advance(done, i)) * factor
        if streamed:
            stream(advance(out, i), value)
        else:
            store(advance(out, i), value)
    return top, total


@inlined
def sum_together(start, stop, coming, top, x, m, total, count, done, scale, out, streamed):
    """The same where exp is summed up only: how many equal ``m``, and Σ exp of the others."""
    lanes = lane_count(x)
    shift, factor, more = scale
    origin = finite_shift(m)
    for i in range(start * lanes, stop * lanes, lanes):
        top = maximum(load(advance(coming, i)), top)
        prefetch_near(advance(coming, i + AHEAD))
        total, count = add_exp(load(advance(x, i)), m, origin, total, count)
        value = load(advance(done, i)) - shift + more
        if streamed:
            stream(advance(out, i), value)
        else:
            store(advance(out, i), value)
    return top, total, count


# --------------------------------------------------------------------------- what is left of each


@inlined
def exp_rest(start, stop, x, n, m, q, total):
    """Vectors ``start`` to ``stop`` of one row: exp into ``q``; ``total`` and their sum."""
    lanes = lane_count(q)
    for i in range(start * lanes, stop * lanes, lanes):
        e = exp(load_padded(x, i, n) - m)
        store(advance(q, i), e)
        total = total + e
    return total


@inlined
def sum_rest(start, stop, x, n, m, total, count):
    lanes = lane_count(x)
    origin = finite_shift(m)
    for i in range(start * lanes, stop * lanes, lanes):
        total, count = add_exp(load_padded(x, i, n), m, origin, total, count)
    return total, count


@inlined
def write_head(begin, done, scale, out, joint, first):
    """A streamed row's results up to the first whole cache line, which it shares with a row before.

    ``joint`` holds that row's part of it: stored in two parts the line would be read first, which
    took a third of the time at (100k, 1000).
    """
    lanes = lane_count(done)
    value = result(load(done), scale)
    if first:
        store_first(out, begin, value)
    else:
        store(advance(joint, lanes - begin), value)
        stream(advance(out, begin - lanes), load(joint))


@inlined
def write_rest(start, done, n, scale, out, joint, streamed, last):
    """A row's results from element ``start`` on; what fills no cache line waits in ``joint``."""
    lanes = lane_count(done)
    i = start
    while i + lanes <= n:
        value = result(load(advance(done, i)), scale)
        if streamed:
            stream(advance(out, i), value)
        else:
            store(advance(out, i), value)
        i += lanes
    if i < n:
        value = result(load_padded(done, i, n), scale)  # these may be the last logits of all
        if streamed and not last:
            store(joint, value)
        else:
            store_first(advance(out, i), n - i, value)


# -------------------------------------------------------------------------------- the end of a row


@inlined
def log_double(x):
    return lane(log(splat_double(x)), 0)


@inlined
def end_softmax_row(job, total, count, known, out):
    """Leave behind what turns exp, or logits, into results."""
    known[SHIFT], known[FACTOR], known[MORE] = 0.0, 1.0, -0.0
    if job.mode == SOFTMAX:
        known[FACTOR] = 1.0 / sum_lanes(total)
        return
    top = known[TOP]
    # -inf equals the maximum of a row of nothing but -inf, and still adds nothing.
    n_tops = float(sum_lanes(count)) if top > -math.inf else 0.0
    value = log_of_sum(splat_double(n_tops), splat_double(float(sum_lanes(total))))
    if job.mode == LOGSUMEXP:
        out[0] = top + lane(value, 0)
    else:
        known[SHIFT], known[MORE] = top, -lane(value, 0)


@inlined
def end_loss_row(job, terms, row, x, q, total, count, known, spare):
    """Return the row's weighted loss; ``q`` and what is left behind make its gradient."""
    like, n = total, job.n
    lanes = lane_count(q)
    vectors = (n + lanes - 1) // lanes
    weight = as_pointer(terms.weight, like)[row] if terms.weight != 0 else 1.0
    label, amount, top = 0, 1.0, known[TOP]
    t = advance(spare, vectors * lanes)
    if terms.soft:
        for i in range(0, n, lanes):
            store(advance(spare, i), load_padded(x, i, n))
        fill_target_row(terms, row, n, t, like)
        gaps, totals = target_over(spare, t, vectors, lanes, splat(top, like))
        gap, amount = float(sum_lanes(gaps)), float(sum_lanes(totals))
    else:
        label = as_int64_pointer(terms.labels)[row]
        gap = float(top - x[label])
    sums = float(sum_lanes(total)) + float(sum_lanes(count))
    log_sum = log_double(sums)
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
        known[SHIFT], known[FACTOR], known[MORE] = 0.0, factor, -0.0
        # q·factor - scale as (q - scale / factor)·factor, where nothing can overflow.
        if not terms.soft and abs(factor) > SAFE * scale and scale > SAFE:
            q[label] -= scale / factor
        else:
            known[FACTOR] = 1.0
            scale_row(terms, q, t, vectors, factor, scale, label)
    return loss


@inlined
def scale_row(terms, q, t, vectors, factor, scale, label):
    """Turn exp into a row's gradient."""
    lanes, like = lane_count(q), load(q)
    factors, weights = splat(factor, like), splat(scale, like)
    if terms.soft:
        scale_less_target_over(q, t, vectors, lanes, factors, weights)
    else:
        scale_over(q, vectors, lanes, factors)
        q[label] -= scale


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
        label = as_int64_pointer(terms.labels)[row]
        t[label] += peak[label]
    else:
        y = advance(as_pointer(terms.targets, like), row * n)
        for k in range(n):
            t[k] += peak[k] * y[k]


# ------------------------------------------------------------------------------------ all of them


@inlined
def scale_of(known, like):
    return splat(known[SHIFT], like), splat(known[FACTOR], like), splat(known[MORE], like)


@inlined
def sums_of_row(together, n, keeps, coming, top, x, m, q, done, scale, out, streamed):
    """Sums of one row, ``together`` vectors of it in flight; and the maximum of what comes."""
    lanes = lane_count(q)
    vectors = (n + lanes - 1) // lanes
    total, count = splat(0.0, m), splat(0.0, m)
    for start in range(0, vectors, CHAIN):
        stop = min(start + CHAIN, vectors)
        middle = max(min(together, stop), start)
        part = splat(0.0, m)
        if keeps:
            top, part = exp_together(
                start, middle, coming, top, x, m, q, part, done, scale, out, streamed
            )
            part = exp_rest(middle, stop, x, n, m, q, part)
        else:
            top, part, count = sum_together(
                start, middle, coming, top, x, m, part, count, done, scale, out, streamed
            )
            part, count = sum_rest(middle, stop, x, n, m, part, count)
        total = total + part
    return top, total, count


@helper
def rows_in_flight(job, terms, first, rows, out, scratch, staged, loss):
    """Some rows, the first one's results at ``out``; ``loss`` and theirs where there are terms.

    How a row is summed up does not depend on what is in flight with it, so its bits do not either.
    """
    lanes, n, like = lane_count(scratch), job.n, load(scratch)
    width = ((n + lanes - 1) // lanes + 1) * lanes
    joint, knowledge = advance(scratch, 2 * width), advance(scratch, 2 * width + 2 * lanes)
    spare = advance(knowledge, max(2 * lanes, 2 * N_KNOWN))
    keeps = job.mode != LOG_SOFTMAX and job.mode != LOGSUMEXP  # exp, in ``q``
    writing = job.mode != LOSS and job.mode != LOGSUMEXP
    streamed = job.streamed and not staged
    x = advance(as_pointer(job.x, like), first * n)
    for turn in range(rows + 2):
        here, past = turn - 1, turn - 2
        coming, x_here = advance(x, turn * n), advance(x, here * n)
        q, done = advance(scratch, here % 2 * width), advance(scratch, past % 2 * width)
        next_known = advance(knowledge, turn % 2 * N_KNOWN)
        known = advance(knowledge, here % 2 * N_KNOWN)
        then = advance(knowledge, past % 2 * N_KNOWN)
        target, begin = advance(out, past * n), 0
        if streamed:
            begin = min(misalignment(target), n)
        together = 0
        if 2 <= turn and turn < rows:
            together = (n - begin) // lanes
        if job.mode == LOG_SOFTMAX:
            done = advance(x, past * n)
        if not writing:
            target = done  # where nothing is kept
        top = splat(-math.inf, like)
        if turn < rows:
            top = maximum_from(together, coming, n)
            next_known[TOP] = max_lanes(top)
        if 0 <= here and here < rows:
            top, total, count = sums_of_row(
                together, n, keeps, coming, top, x_here, splat(known[TOP], like), q,
                advance(done, begin), scale_of(then, like),
                advance(target, begin), streamed,
            )  # fmt: skip
            if terms is None:
                end_softmax_row(job, total, count, known, advance(out, here))
            else:
                loss += end_loss_row(
                    job, terms, first + here, x_here, q, total, count, known, spare
                )
        if together > 0:
            next_known[TOP] = max_lanes(top)
        if writing and past >= 0:
            scale = scale_of(then, like)
            if begin > 0:  # a store of no lanes reads its line from memory all the same
                write_head(begin, done, scale, target, joint, past == 0)
            last = past == rows - 1
            write_rest(begin + together * lanes, done, n, scale, target, joint, streamed, last)
    return loss
