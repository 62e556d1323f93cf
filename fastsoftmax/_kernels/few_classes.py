"""Rows of few logits: transposed, rows along the lanes, as in `fastsoftmax._kernels.loss`.

Results are written in whole vectors: what a row has too many is overwritten by the row behind it,
so the target needs room for one vector more than it has values (masked stores took longer than
exp).
"""

from __future__ import annotations

from fastsoftmax._kernels.elementary import exp
from fastsoftmax._kernels.jit import helper, inlined
from fastsoftmax._kernels.loss import N_STATISTICS, loss_tile, tile_rows
from fastsoftmax._kernels.modes import LOGSUMEXP, SOFTMAX
from fastsoftmax._kernels.rows import CHAIN, add_exp, finite_shift, log_of_sum, maximum
from fastsoftmax._kernels.simd import (
    advance,
    as_pointer,
    lane_count,
    load,
    prefetch,
    select,
    splat,
    store,
)
from fastsoftmax._kernels.tiles import (
    load_rows,
    load_rows_within,
    scale_rows,
    store_rows,
    subtract_from_rows,
    transpose,
)

# Memory is prefetched this many turns ahead, of two vectors of rows each.
AHEAD = 4


@inlined
def read_transposed(x, n, rows, rows_after, z, width):
    """Lay ``rows`` rows of n logits out as z[k * width + row], ``width`` whole vectors of rows.

    Whole vectors are read even past a row's end where enough rows follow in memory.
    """
    lanes = lane_count(z)
    for r in range(0, width, lanes):
        for k in range(0, n, lanes):
            source = advance(x, r * n + k)
            height = rows - r
            within = n - k >= lanes or (rows_after + height - lanes) * n >= lanes
            if height >= lanes and within:
                vectors = load_rows(source, n, z)
            else:
                vectors = load_rows_within(source, n, height, n - k, z)
            store_rows(advance(z, k * width + r), width, transpose(vectors))


@helper
def write_transposed(z, width, n, shift, factor, less, out):
    """out[row, k] = (z[k * width + row] - shift)·factor - less, a vector of rows."""
    lanes = lane_count(z)
    # The last vector of a row spills into the next row, so it is written first.
    for k in range((n - 1) // lanes * lanes, -1, -lanes):
        vectors = load_rows(advance(z, k * width), width, z)
        vectors = scale_rows(subtract_from_rows(vectors, shift), factor)
        store_rows(advance(out, k), n, transpose(subtract_from_rows(vectors, less)))


# ------------------------------------------------ softmax and its relatives, two vectors of rows
# One alone waits for its own latencies, and calls in so short a loop cost more than they hold.


@inlined
def maxima(z, n, width):
    """The largest of each row's logits."""
    lanes = lane_count(z)
    m, m2 = load(z), load(advance(z, lanes))
    for k in range(1, n):
        m = maximum(load(advance(z, k * width)), m)
        m2 = maximum(load(advance(z, k * width + lanes)), m2)
    return m, m2


@inlined
def exp_in_place(z, n, width, m, m2, ahead):
    """Turn z into exp(z - m) and return the rows' sums; prefetch as much from ``ahead``."""
    lanes, zero = lane_count(z), splat(0.0, m)
    total, total2 = zero, zero
    for first in range(0, n, CHAIN):
        part, part2 = zero, zero
        for k in range(first, min(first + CHAIN, n)):
            p, p2 = advance(z, k * width), advance(z, k * width + lanes)
            e, e2 = exp(load(p) - m), exp(load(p2) - m2)
            store(p, e)
            store(p2, e2)
            prefetch(advance(ahead, k * width))
            prefetch(advance(ahead, k * width + lanes))
            part, part2 = part + e, part2 + e2
        total, total2 = total + part, total2 + part2
    return total, total2


@inlined
def log_sums(z, n, width, m, m2, ahead):
    """Ln Σ exp(z - m) of the rows; prefetch as much from ``ahead``."""
    lanes, zero = lane_count(z), splat(0.0, m)
    shift, shift2 = finite_shift(m), finite_shift(m2)
    rest, rest2, count, count2 = zero, zero, zero, zero
    for first in range(0, n, CHAIN):
        part, part2 = zero, zero
        for k in range(first, min(first + CHAIN, n)):
            p, p2 = advance(z, k * width), advance(z, k * width + lanes)
            part, count = add_exp(load(p), m, shift, part, count)
            part2, count2 = add_exp(load(p2), m2, shift2, part2, count2)
            prefetch(advance(ahead, k * width))
            prefetch(advance(ahead, k * width + lanes))
        rest, rest2 = rest + part, rest2 + part2
    # -inf equals the maximum of a row of nothing but -inf, and still adds nothing.
    count, count2 = select(shift == m, count, zero), select(shift2 == m2, count2, zero)
    return log_of_sum(count, rest), log_of_sum(count2, rest2)


@helper
def softmax_tiles(job, first, rows, out, z):
    """Softmax, or what the mode says, of some rows."""
    lanes, n = lane_count(z), job.n
    width, zero, one = 2 * lanes, splat(0.0, load(z)), splat(1.0, load(z))
    for r in range(0, rows, width):
        x = advance(as_pointer(job.x, zero), (first + r) * n)
        here = min(width, rows - r)
        read_transposed(x, n, here, job.n_rows - first - r - here, z, width)
        m, m2 = maxima(z, n, width)
        ahead = advance(x, AHEAD * width * n)
        shift, shift2, factor, factor2, less, less2 = zero, zero, one, one, zero, zero
        if job.mode == SOFTMAX:
            total, total2 = exp_in_place(z, n, width, m, m2, ahead)
            factor, factor2 = one / total, one / total2
        else:
            shift, shift2 = m, m2
            less, less2 = log_sums(z, n, width, m, m2, ahead)
        if job.mode == LOGSUMEXP:
            store(advance(out, r), m + less)
            if here > lanes:
                store(advance(out, r + lanes), m2 + less2)
            continue
        target = advance(out, r * n)
        write_transposed(z, width, n, shift, factor, less, target)
        if here > lanes:
            z2, target2 = advance(z, lanes), advance(target, lanes * n)
            write_transposed(z2, width, n, shift2, factor2, less2, target2)


@helper
def loss_of_tiles(job, terms, first, rows, out, z):
    """Weighted loss of some rows, and their gradient."""
    lanes, tile, n = lane_count(z), tile_rows(z), job.n
    statistics = z
    z = advance(z, N_STATISTICS * tile)
    t = advance(z, (n + lanes - 1) // lanes * lanes * tile)
    zero = splat(0.0, load(statistics))
    share = splat(1.0 / job.denominator, zero)
    loss = 0.0
    for r in range(0, rows, tile):
        x = advance(as_pointer(job.x, zero), (first + r) * n)
        here = min(tile, rows - r)
        read_transposed(x, n, here, job.n_rows - first - r - here, z, tile)
        loss += loss_tile(terms, first + r, here, n, z, t, zero, statistics, job.out != 0)
        if job.out != 0:
            for v in range(0, here, lanes):
                target = advance(out, (r + v) * n)
                write_transposed(advance(z, v), tile, n, zero, share, zero, target)
    return loss
