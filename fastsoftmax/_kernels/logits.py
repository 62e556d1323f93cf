"""Rows of logits that lie in memory: softmax and its relatives, and the loss on top of them.

Few classes go through a transposed tile, rows along the lanes, as in `fastsoftmax._kernels.loss`;
many classes go row by row, a row being copied into scratch first (padded to whole vectors, so that
nothing below it knows of edges; out of the cache the copy hides behind the memory). Results can be
streamed past the caches, which saves reading the lines they overwrite.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastsoftmax._kernels.elementary import log
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.loss import loss_tile, tile_rows
from fastsoftmax._kernels.rows import (
    exp_over,
    exp_sum_over,
    log_of_sum,
    maximum,
    maximum_over,
    scale_less_target_over,
    scale_over,
    target_over,
)
from fastsoftmax._kernels.simd import (
    LANES_64,
    advance,
    as_float64_pointer,
    as_int64_pointer,
    as_pointer,
    fence,
    lane,
    lane_count,
    load,
    load_double,
    load_first,
    max_lanes,
    misalignment,
    pointer,
    splat,
    splat_double,
    store,
    store_first,
    store_narrow,
    stream,
    sum_lanes,
)
from fastsoftmax._kernels.tiles import (
    load_rows,
    load_rows_within,
    store_rows,
    store_rows_within,
    transpose,
)

SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = 0, 1, 2
# Up to this many vectors a row is transposed: fewer would leave lanes empty and sum across them.
TRANSPOSED_VECTORS = 2
LOSS_TRANSPOSED_VECTORS = 4
STAGED_ROWS = 64


class Rows(NamedTuple):
    """Contiguous rows x[i, :], and where their results go."""

    x: int
    out: int
    n_rows: int
    n: int
    mode: int
    chunk: int  # rows drawn at once
    streamed: bool


# ----------------------------------------------------------------------------- a transposed tile


@helper
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
def write_transposed(z, width, n, rows, out):
    """Undo `read_transposed`: out[row, k] = z[k * width + row], nothing else is written."""
    lanes = lane_count(z)
    for r in range(0, rows, lanes):
        for k in range(0, n, lanes):
            vectors = transpose(load_rows(advance(z, k * width + r), width, z))
            target = advance(out, r * n + k)
            if rows - r >= lanes and n - k >= lanes:
                store_rows(target, n, vectors)
            else:
                store_rows_within(target, n, rows - r, n - k, vectors)


@helper
def softmax_group(job, first, rows, z, statistics, out):
    """As many rows as a vector has lanes, transposed; results go to ``out``."""
    lanes, n = lane_count(z), job.n
    like = statistics
    x = advance(as_pointer(job.x, like), first * n)
    read_transposed(x, n, rows, job.n_rows - first - rows, z, lanes)
    m = maximum_over(z, n, lanes)
    shift, factor, log_sum = splat(0.0, m), splat(1.0, m), splat(0.0, m)
    if job.mode == SOFTMAX:
        ahead = advance(x, 8 * lanes * n)
        factor = factor / exp_over(z, n, lanes, m, z, lanes, ahead, lanes)
    else:
        shift = m
        count, rest = exp_sum_over(z, n, lanes, m)
        store(statistics, count)
        store(advance(statistics, lanes), rest)
        store(advance(statistics, 2 * lanes), m)
        for r in range(0, lanes, LANES_64):
            row = advance(statistics, r)
            value = log_of_sum(load_double(row), load_double(advance(row, lanes)))
            if job.mode == LOGSUMEXP:
                value = value + load_double(advance(row, 2 * lanes))
            store_narrow(advance(row, 3 * lanes), value)
        log_sum = load(advance(statistics, 3 * lanes))
    if job.mode == LOGSUMEXP:
        store_first(out, rows, log_sum)
        return
    for k in range(n):
        p = advance(z, k * lanes)
        store(p, (load(p) - shift) * factor - log_sum)
    write_transposed(z, lanes, n, rows, out)


# ------------------------------------------------------------------------------------ row by row


@helper
def read_row(x, n, z):
    """Copy a row into ``z``, padded with -inf to whole vectors; its maximum (NaN passed over)."""
    lanes = lane_count(z)
    lowest = splat(-math.inf, load(z))
    m, other = lowest, lowest
    whole = n // lanes
    for i in range(0, whole - 1, 2):
        a, b = load(advance(x, i * lanes)), load(advance(x, (i + 1) * lanes))
        store(advance(z, i * lanes), a)
        store(advance(z, (i + 1) * lanes), b)
        m, other = maximum(a, m), maximum(b, other)
    for i in range(whole // 2 * 2 * lanes, n, lanes):
        v = load_first(advance(x, i), n - i, lowest)
        store(advance(z, i), v)
        m = maximum(v, m)
    return max_lanes(maximum(other, m))


@helper
def write_row(z, n, shift, factor, less, out, streamed):
    """Out = (z - shift)·factor - less, a row of n values."""
    lanes = lane_count(z)
    like = load(z)
    shift, factor, less = splat(shift, like), splat(factor, like), splat(less, like)
    start = 0
    if streamed:
        start = min(misalignment(out), n)
        store_first(out, start, (load(z) - shift) * factor - less)
        while start + lanes <= n:
            stream(advance(out, start), (load(advance(z, start)) - shift) * factor - less)
            start += lanes
    else:
        while start + lanes <= n:
            store(advance(out, start), (load(advance(z, start)) - shift) * factor - less)
            start += lanes
    if start < n:
        value = (load(advance(z, start)) - shift) * factor - less
        store_first(advance(out, start), n - start, value)


@helper
def log_double(x):
    return lane(log(splat_double(x)), 0)


@helper
def softmax_row(job, row, z, like):
    """One row, lanes along its classes."""
    lanes, n = lane_count(z), job.n
    vectors = (n + lanes - 1) // lanes
    x = advance(as_pointer(job.x, like), row * n)
    m = read_row(x, n, z)
    out = as_pointer(job.out, like)
    if job.mode == SOFTMAX:
        total = exp_over(z, vectors, lanes, splat(m, load(z)), z, lanes, advance(x, n), lanes)
        factor = 1.0 / sum_lanes(total)
        write_row(z, n, 0.0, factor, 0.0, advance(out, row * n), job.streamed)
        return
    count, rest = exp_sum_over(z, vectors, lanes, splat(m, load(z)))
    value = log_of_sum(splat_double(float(sum_lanes(count))), splat_double(float(sum_lanes(rest))))
    log_sum = lane(value, 0)
    if job.mode == LOGSUMEXP:
        out[row] = m + log_sum
    else:
        write_row(z, n, m, 1.0, log_sum, advance(out, row * n), job.streamed)


@helper
def softmax_rows(job, first, scratch):
    """A chunk of rows, from row ``first`` on."""
    z = pointer(scratch)
    lanes = lane_count(z)
    stop = min(first + job.chunk, job.n_rows)
    if job.n > TRANSPOSED_VECTORS * lanes:
        for row in range(first, stop):
            softmax_row(job, row, z, z)
    else:
        width = 1 if job.mode == LOGSUMEXP else job.n
        out = as_pointer(job.out, z)
        statistics = advance(z, (job.n + lanes - 1) // lanes * lanes * lanes)
        staged = advance(statistics, 4 * lanes)
        for start in range(first, stop, STAGED_ROWS):
            # Rows of a few classes share cache lines: they are gathered before they are streamed.
            rows = min(STAGED_ROWS, stop - start)
            target = staged if job.streamed else advance(out, start * width)
            for r in range(0, rows, lanes):
                there = advance(target, r * width)
                softmax_group(job, start + r, min(lanes, rows - r), z, statistics, there)
            if job.streamed:
                write_row(staged, rows * width, 0.0, 1.0, 0.0, advance(out, start * width), True)
    if job.streamed:
        fence()


# ------------------------------------------------------------------- the loss of rows of logits


class LogitsLoss(NamedTuple):
    """Contiguous logits x[i, :], and where their gradient goes."""

    x: int
    out: int  # 0 where only the loss is wanted
    n_rows: int
    n: int
    chunk: int
    denominator: float
    streamed: bool


@helper
def loss_of_tile(job, terms, first, rows, scratch):
    """Weighted loss of a tile of rows, and their gradient; transposed."""
    z = pointer(scratch)
    lanes, tile, n = lane_count(z), tile_rows(z), job.n
    whole = (n + lanes - 1) // lanes * lanes
    t = advance(z, whole * tile)
    statistics = advance(t, whole * tile)
    x = advance(as_pointer(job.x, scratch), first * n)
    read_transposed(x, n, rows, job.n_rows - first - rows, z, tile)
    loss = loss_tile(terms, first, rows, n, z, t, scratch, statistics, job.out != 0)
    if job.out != 0:
        for i in range(0, n * tile, lanes):
            p = advance(z, i)
            v = load(p)
            store(p, v / splat(job.denominator, v))
        out = advance(as_pointer(job.out, scratch), first * n)
        if job.streamed:
            write_transposed(z, tile, n, rows, t)
            write_row(t, rows * n, 0.0, 1.0, 0.0, out, True)
        else:
            write_transposed(z, tile, n, rows, out)
    return loss


@helper
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


@helper
def loss_of_row(job, terms, row, scratch):
    """Weighted loss of one row, and its gradient; lanes along the classes."""
    z = pointer(scratch)
    lanes, n = lane_count(z), job.n
    vectors = (n + lanes - 1) // lanes
    t = advance(z, vectors * lanes)
    x = advance(as_pointer(job.x, scratch), row * n)
    weight = as_pointer(terms.weight, scratch)[row] if terms.weight != 0 else 1.0
    m = read_row(x, n, z)
    label, amount = 0, 1.0
    if terms.soft:
        fill_target_row(terms, row, n, t, scratch)
        gaps, totals = target_over(z, t, vectors, lanes, splat(m, load(z)))
        gap, amount = float(sum_lanes(gaps)), float(sum_lanes(totals))
    else:
        label = as_int64_pointer(terms.labels)[row]
        gap = float(m - z[label])
    sums = exp_over(z, vectors, lanes, splat(m, load(z)), z, lanes, advance(x, n), lanes)
    total = float(sum_lanes(sums))
    log_sum = log_double(total)
    lse = m + log_sum
    loss = amount * log_sum + gap
    if terms.alpha != 0.0:
        loss += terms.alpha * lse * lse
        amount += 2.0 * terms.alpha * lse
    loss = weight * loss if weight != 0.0 else 0.0
    if terms.row_losses != 0:
        as_float64_pointer(terms.row_losses)[row] = loss
    if job.out == 0:
        return loss
    scale = weight / job.denominator
    factor = scale * amount / total if weight != 0.0 else 0.0
    if terms.soft:
        factors, weights = splat(factor, load(z)), splat(scale, load(z))
        scale_less_target_over(z, t, vectors, lanes, factors, weights)
    else:
        scale_over(z, vectors, lanes, splat(factor, load(z)))
        z[label] -= scale
    write_row(z, n, 0.0, 1.0, 0.0, advance(as_pointer(job.out, scratch), row * n), job.streamed)
    return loss


@helper
def loss_of_chunk(job, terms, first, scratch):
    """Weighted loss of a chunk of rows, and their gradient."""
    z = pointer(scratch)
    stop = min(first + job.chunk, job.n_rows)
    loss = 0.0
    if job.n > LOSS_TRANSPOSED_VECTORS * lane_count(z):
        for row in range(first, stop):
            loss += loss_of_row(job, terms, row, scratch)
    else:
        tile = tile_rows(z)
        for row in range(first, stop, tile):
            loss += loss_of_tile(job, terms, row, min(tile, stop - row), scratch)
    if job.streamed:
        fence()
    return loss
