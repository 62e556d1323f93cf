"""Rows of few logits, worked on as they lie, one behind another.

The vectors that are exponentiated and written are those of the result array's memory, wherever in a
row they begin. So no lane is empty, and nothing is moved. With rows a, b, c of 5 logits, vectors of
8, and results that begin 6 elements behind the start of a vector:

    memory of results    | . . . . . . a a | a a a b b b b b | c c c c c …
    factors, by `spread`               A A   A A A B B B B B   C C C C C

Values that belong to a row are spread over the lanes of its logits by a permutation. Only maxima
and sums are taken row by row, of as many rows at once as a vector has lanes: transposing the rows
there and back took twice as long as all of this.

A chunk of rows is worked on in blocks, and where results are streamed a block's first vector begins
``before`` elements ahead of it. The first block must not touch those: they belong to another chunk,
or to nobody. For later blocks they are the end of the block before, which has not written them, but
kept what they need (`keep_last`).
"""

import math
from typing import Any, NamedTuple

from numba.extending import register_jitable

from fastsoftmax._kernels.jit import HELPER_OPTIONS, helper, inlined
from fastsoftmax._kernels.modes import GRADIENT, LOG_SOFTMAX, LOGSUMEXP, LOSS, SOFTMAX
from fastsoftmax._kernels.rows.few_row_values import (
    fill_table,
    keep_last,
    rotate,
    spread,
    take_maxima,
    take_sums,
)
from fastsoftmax._kernels.rows.results import put
from fastsoftmax._kernels.softmax.losses import N_STATISTICS, gather_weights, label_of, row_factors
from fastsoftmax._kernels.vector.exp_log import exp, log
from fastsoftmax._kernels.vector.lanes import count_lanes
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
    misalignment,
    prefetch_near,
    select,
    splat,
    splat_double,
    store,
    store_first,
    store_narrow,
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
# How many elements ahead logits are prefetched.
AHEAD = 2048

# What is kept of a block's logits: exp of their gaps to the maximum; the gaps as well; or the gaps,
# and exp below the maximum, with 0 for the maxima, which are counted: see `take_logs`.
EXP, EXP_AND_GAPS, EXP_BELOW_MAXIMUM = 0, 1, 2
N_ELEMENTWISE = 5  # arrays of `BlockScratch` with a value a logit


class BlockScratch(NamedTuple):
    """What is kept of a block of rows: values a row, and from ``e`` on values a logit."""

    stride: int  # elements from one of the six that follow to the next, see `row_factors`
    maxima: Any
    sums: Any  # Σ exp
    gap: Any  # between the maximum and the targets' logits
    scales: Any  # of the targets in the gradient; before that the weights
    amount: Any  # Σ of the targets
    factors: Any  # of exp in the results; logarithms of the sums where those are wanted
    e: Any  # exp
    gaps: Any
    targets: Any
    floors: Any  # of soft targets, row after row
    peaks: Any
    table: tuple[Any, Any]  # see `fill_table`


@register_jitable(**HELPER_OPTIONS)
def few_classes_scratch(n, lanes):
    """Elements of scratch that `divide_scratch` divides."""
    rows = max(BLOCK_VECTORS // n, 1) * lanes
    stride, size = rows + 2 * lanes, rows * n + 2 * lanes
    return lanes + N_STATISTICS * stride + (N_ELEMENTWISE + 1) * size + 2 * size // lanes


@helper
def divide_scratch(n, rows, scratch):
    """Divide the scratch of a block: all but the table have a vector to spare on both sides."""
    lanes = lane_count(scratch)
    stride, size = rows + 2 * lanes, rows * n + 2 * lanes
    values = advance(scratch, lanes)
    e = advance(values, N_STATISTICS * stride)
    places = advance(e, N_ELEMENTWISE * size - lanes)
    return BlockScratch(
        stride, values, advance(values, stride), advance(values, 2 * stride),
        advance(values, 3 * stride), advance(values, 4 * stride), advance(values, 5 * stride),
        e, advance(e, size), advance(e, 2 * size), advance(e, 3 * size), advance(e, 4 * size),
        (places, as_int64_pointer(advance(places, size))),
    )  # fmt: skip


# --------------------------------------------------------------------------------- steps of a block


@inlined
def exp_of(gap, e, gaps, kept):
    """Store exp(gap), and what else is ``kept``; return how many maxima were left out."""
    if kept != EXP:
        store(gaps, gap)
    if kept != EXP_BELOW_MAXIMUM:
        store(e, exp(gap))
        return 0
    zero = splat(0.0, gap)
    top = gap == zero
    store(e, select(top, zero, exp(gap)))
    return count_lanes(top)


@helper
def take_exp(x, before, first_block, n, kept, block):
    """Exponentiate the gaps of n logits to their rows' maxima; return what `exp_of` counts."""
    lanes, lowest, table = lane_count(block.e), splat(-math.inf, load(block.e)), block.table
    x, e, gaps = advance(x, -before), advance(block.e, -before), advance(block.gaps, -before)
    n_tops, start, end = 0, 0, before + n
    if before > 0 and first_block:
        ours = load_first(advance(x, before), min(lanes - before, n), lowest)
        gap = rotate(ours, lanes - before) - spread(block.maxima, 0, table)
        n_tops, start = exp_of(gap, e, gaps, kept), lanes
    elif before > 0:  # the loop counts these again
        gap = load_first(x, before, lowest) - spread(block.maxima, 0, table)
        n_tops = -count_lanes(gap == splat(0.0, gap))
    whole = max(end // lanes * lanes, start)
    for i in range(start, whole, lanes):
        prefetch_near(advance(x, i + AHEAD))
        gap = load(advance(x, i)) - spread(block.maxima, i, table)
        n_tops += exp_of(gap, advance(e, i), advance(gaps, i), kept)
    if whole < end:
        ours = load_first(advance(x, whole), end - whole, lowest)
        gap = ours - spread(block.maxima, whole, table)
        n_tops += exp_of(gap, advance(e, whole), advance(gaps, whole), kept)
    return n_tops


@helper
def count_zeros(gaps, n, like):
    """How many zeros each row has, of a vector of rows."""
    lanes, one = lane_count(gaps), splat(1.0, like)
    counts = ones_where_zero(load_row_starts(gaps, n, n, one))
    for k in range(lanes, n, lanes):
        ones = ones_where_zero(load_row_starts(advance(gaps, k), n, n - k, one))
        counts = add_rows(ones, counts)
    return sums_of_rows(counts)


@helper
def log_where_infinite(x, n, m):
    """Ln Σ exp(x - m) of a row with an infinite maximum m, or a NaN."""
    for k in range(n):
        if x[k] != x[k]:
            return x[k]
    return 0.0 if m > 0.0 else m


@helper
def take_logs(x, n, rows, n_tops, block):
    """Leave ln(count + rest) in ``block.factors``.

    ``count`` logits of a row are its maximum, and ``rest`` is Σ exp of the others. Where count is 1
    and rest is small, total = 1 + rest loses digits of it: lost = rest - (total - 1), exactly. To
    first order they add lost / total to ln(total). That is needed only where ln(total) is small:
    from a total of 2 on it is left out, and below, the chord 1.5 - total / 2 takes the place of
    1 / total. It is exact for a total of 1 and off by less than 0.09 up to 2.
    """
    lanes, zero = lane_count(block.sums), splat(0.0, load(block.sums))
    one, slope, start = splat(1.0, zero), splat(-0.5, zero), splat(1.5, zero)
    odd = False  # whether a row has a NaN, or an infinite maximum: then its gaps have one
    for r in range(0, rows, lanes):
        rest = load(advance(block.sums, r))
        odd = odd or count_lanes(rest == rest) < lanes  # or a lane behind the last row, by chance
    for r in range(0, rows, lanes):
        rest, count, logs = load(advance(block.sums, r)), one, advance(block.factors, r)
        if odd or n_tops != rows:  # else each row has one maximum
            count = count_zeros(advance(block.gaps, r * n), n, count)
        total = rest + count
        lost = select(total < one + one, rest - (total - one), zero)
        store(logs, log(total) + lost * fma(slope, total, start))
        if odd:
            for i in range(min(lanes, rows - r)):
                m = block.maxima[r + i]
                if abs(m) == math.inf:
                    logs[i] = log_where_infinite(advance(x, (r + i) * n), n, m)


@inlined
def result(mode, i, e, other, block):
    """Results of a vector: e·factor, gap - logarithm, or e·factor + target·scale."""
    factor = spread(block.factors, i, block.table)
    if mode == SOFTMAX:
        return load(advance(e, i)) * factor
    if mode != GRADIENT:
        return load(advance(other, i)) - factor
    zero = splat(0.0, factor)
    value = select(factor == zero, zero, load(advance(e, i)))  # where e may be infinite or NaN
    return fma(load(advance(other, i)), spread(block.scales, i, block.table), value * factor)


@helper
def write_results(job, before, first_block, last_block, n, block, out):
    """Write the results of n logits, but for a last vector that the next block will complete."""
    lanes, mode = lane_count(out), job.mode
    e, out = advance(block.e, -before), advance(out, -before)
    other = advance(block.targets if mode == GRADIENT else block.gaps, -before)
    start, end = 0, before + n
    if before > 0 and first_block:
        value = rotate(result(mode, 0, e, other, block), before)
        store_first(advance(out, before), min(lanes - before, n), value)
        start = lanes
    whole = max(end // lanes * lanes, start)
    for i in range(start, whole, lanes):
        put(advance(out, i), result(mode, i, e, other, block), job.streamed)
    if last_block and whole < end:
        store_first(advance(out, whole), end - whole, result(mode, whole, e, other, block))


# ------------------------------------------------------------------------------------------- losses

# The letters are those of `fastsoftmax._kernels.softmax.losses`. The gradient is e·factor + t·scale
# with e = exp(z - m), factor = s·(T + 2α·lse)/Σe and scale = -s, both over the denominator.


@helper
def prepare_targets(terms, n, rows, block):
    """Lay floors and peaks out row after row, and targets of zero, once for all blocks."""
    like, lanes = load(block.targets), lane_count(block.targets)
    if terms.soft:
        floor, peak = as_pointer(terms.floor, like), as_pointer(terms.peak, like)
        for i in range(0, rows * n, n):
            for k in range(n):
                block.floors[i + k], block.peaks[i + k] = floor[k], peak[k]
    for i in range(-lanes, rows * n + lanes, lanes):
        store(advance(block.targets, i), splat(0.0, like))


@helper
def take_soft_targets(terms, first, rows, n, block):
    """Leave peak∘y + floor in ``block.targets``, and in ``block.gaps`` targets times gaps."""
    like, lanes, end = load(block.targets), lane_count(block.targets), rows * n
    peak = as_pointer(terms.peak, like)
    y = advance(as_pointer(terms.targets, like), first * n)
    zero = splat(0.0, like)
    for i in range(0, end, lanes):
        target = load(advance(block.floors, i))
        if terms.targets != 0:
            given = load_first(advance(y, i), end - i, zero)
            target = fma(load(advance(block.peaks, i)), given, target)
        store(advance(block.targets, i), target)
    if terms.targets == 0:
        for r in range(rows):
            label = label_of(terms, first + r, n)
            block.targets[r * n + label] += peak[label]
    for i in range(0, end, lanes):
        target = load(advance(block.targets, i))
        term = target * (zero - load(advance(block.gaps, i)))
        # A target of zero times an infinite gap is 0.
        store(advance(block.gaps, i), select(target == zero, zero, term))


@helper
def take_losses(job, terms, first, rows, x, block):
    """Return the weighted loss of a block's rows; leave factors, scales and targets behind."""
    lanes, n, like = lane_count(block.targets), job.n, load(block.targets)
    width, scale = (rows + lanes - 1) // lanes * lanes, 1.0 / job.denominator
    gather_weights(terms, first, rows, width, block.scales, like)
    if terms.soft:
        take_soft_targets(terms, first, rows, n, block)
        take_sums(block.targets, n, rows, block.amount)
        take_sums(block.gaps, n, rows, block.gap)
    else:
        for r in range(rows):
            place = r * n + label_of(terms, first + r, n)
            block.gap[r] = block.maxima[r] - x[place]
            block.targets[place] = 1.0
        for r in range(0, width, lanes):
            store(advance(block.amount, r), splat(1.0, like))
    loss = row_factors(terms, first, rows, width, block.maxima, block.stride, scale)
    for r in range(0, width, LANES_64):  # in float64, since ``scale`` may be no normal float32
        p = advance(block.scales, r)
        store_narrow(p, load_double(p) * splat_double(-scale))
    return loss


@helper
def clear_targets(terms, first, rows, n, block):
    """Make targets zero again where labels of these rows have left ones."""
    if not terms.soft:
        for r in range(rows):
            block.targets[r * n + label_of(terms, first + r, n)] = 0.0


# ---------------------------------------------------------------------------------------- all steps


@helper
def run_few_classes(job, terms, first, stop, scratch):
    """Run rows [first, stop), block by block; return their weighted loss if there are terms."""
    lanes, n, mode, like = lane_count(scratch), job.n, job.mode, load(scratch)
    block_rows, loss = max(BLOCK_VECTORS // n, 1) * lanes, 0.0
    block = divide_scratch(n, block_rows, scratch)
    out, before = as_pointer(job.out, like), 0
    if job.streamed:  # else vectors begin where the block does
        before = (lanes - misalignment(advance(out, first * n))) % lanes
    most = min(block_rows, stop - first)
    fill_table(n, before, most * n // lanes + 2, block.table)
    kept = EXP_BELOW_MAXIMUM if mode == LOG_SOFTMAX or mode == LOGSUMEXP else EXP
    if terms is not None:
        prepare_targets(terms, n, most, block)
        kept = EXP_AND_GAPS if terms.soft else EXP
    for start in range(first, stop, block_rows):
        rows, first_block = min(block_rows, stop - start), start == first
        x = advance(as_pointer(job.x, like), start * n)
        take_maxima(x, n, rows, block.maxima)
        n_tops = take_exp(x, before, first_block, rows * n, kept, block)
        take_sums(block.e, n, rows, block.sums)
        if terms is not None:
            loss += take_losses(job, terms, start, rows, x, block)
        elif mode == SOFTMAX:
            for r in range(0, rows, lanes):
                total = load(advance(block.sums, r))
                store(advance(block.factors, r), splat(1.0, like) / total)
        else:
            take_logs(x, n, rows, n_tops, block)
        if mode == LOGSUMEXP:
            for r in range(0, rows, lanes):
                value = load(advance(block.maxima, r)) + load(advance(block.factors, r))
                store_first(advance(out, start + r), rows - r, value)
        if mode != LOSS and mode != LOGSUMEXP:
            target = advance(out, start * n)
            write_results(job, before, first_block, start + rows == stop, rows * n, block, target)
            keep_last(block.maxima, rows)
            keep_last(block.factors, rows)
        if terms is not None:
            keep_last(block.scales, rows)
            keep_last(block.targets, rows * n)
            clear_targets(terms, start, rows, n, block)
    return loss
