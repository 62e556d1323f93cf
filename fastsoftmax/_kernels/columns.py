"""Softmax and its relatives along an axis that is not the last: columns in lanes, nothing moved.

The array is (outer, n, inner), reduced over n. Rows are cut into chunks and columns into strips;
each task reduces its piece to a maximum and two sums a column (merged afterwards, in order), and in
a second sweep writes its piece of the result. A single long row is an (n/inner, inner) array whose
columns are merged too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastsoftmax._kernels.elementary import exp
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.rows import exp_sum_over, maximum_over, merge
from fastsoftmax._kernels.simd import (
    advance,
    as_pointer,
    lane_count,
    load,
    load_first,
    pointer,
    splat,
    store,
    store_first,
)

# Columns of a strip and rows reduced at once: 32 rows of 256 floats stay in L1.
STRIP = 256
BLOCK = 32


class Columns(NamedTuple):
    """A contiguous (outer, n, inner) array and what belongs to its columns."""

    x: int
    out: int  # 0 while reducing
    outer: int
    n: int
    inner: int
    padded: int  # inner, rounded up to whole vectors
    chunk: int  # rows of a task
    n_chunks: int
    exponentiate: bool  # out = exp(x - shift)·factor, otherwise (x - shift) - factor
    top: int  # reducing: (outer, n_chunks, padded) each; writing: (outer, padded) each
    tally: int
    rest: int
    shift: int
    factor: int


@helper
def run_task(job, task, scratch):
    """Reduce, or write, one chunk of rows of one strip of columns."""
    n_strips = (job.inner + STRIP - 1) // STRIP
    strip = task % n_strips
    chunk = task // n_strips % job.n_chunks
    outer = task // (n_strips * job.n_chunks)
    first, stop = chunk * job.chunk, min((chunk + 1) * job.chunk, job.n)
    left, right = strip * STRIP, min((strip + 1) * STRIP, job.inner)
    if job.out == 0:
        reduce_piece(job, outer, chunk, first, stop, left, right, scratch)
    else:
        write_piece(job, outer, first, stop, left, right, scratch)


@helper
def reduce_piece(job, outer, chunk, first, stop, left, right, scratch):
    """Leave maximum, count and rest of every column of the piece behind."""
    edge = pointer(scratch)
    lanes = lane_count(edge)
    x = advance(as_pointer(job.x, scratch), outer * job.n * job.inner)
    row = (outer * job.n_chunks + chunk) * job.padded
    maxima = advance(as_pointer(job.top, scratch), row)
    counts = advance(as_pointer(job.tally, scratch), row)
    rests = advance(as_pointer(job.rest, scratch), row)
    lowest = splat(-math.inf, load(edge))
    zero = splat(0.0, lowest)
    for column in range(left, right, lanes):
        store(advance(maxima, column), lowest)
        store(advance(counts, column), zero)
        store(advance(rests, column), zero)
    for i in range(first, stop, BLOCK):
        rows = min(BLOCK, stop - i)
        for column in range(left, right, lanes):
            source, step = advance(x, i * job.inner + column), job.inner
            if column + lanes > job.inner:
                for r in range(rows):
                    v = load_first(advance(source, r * step), job.inner - column, lowest)
                    store(advance(edge, r * lanes), v)
                source, step = edge, lanes
            m = maximum_over(source, rows, step)
            count, rest = exp_sum_over(source, rows, step, m)
            a, b, c = advance(maxima, column), advance(counts, column), advance(rests, column)
            m, count, rest = merge(load(a), load(b), load(c), m, count, rest)
            store(a, m)
            store(b, count)
            store(c, rest)


@helper
def write_piece(job, outer, first, stop, left, right, scratch):
    """Write the results of the piece from its columns' shift and factor."""
    lanes = lane_count(pointer(scratch))
    x, out = as_pointer(job.x, scratch), as_pointer(job.out, scratch)
    shifts = advance(as_pointer(job.shift, scratch), outer * job.padded)
    factors = advance(as_pointer(job.factor, scratch), outer * job.padded)
    zero = splat(0.0, load(pointer(scratch)))
    for i in range(first, stop):
        start = (outer * job.n + i) * job.inner
        for column in range(left, right, lanes):
            width = job.inner - column
            source, target = advance(x, start + column), advance(out, start + column)
            v = load(source) if width >= lanes else load_first(source, width, zero)
            v = v - load(advance(shifts, column))
            factor = load(advance(factors, column))
            v = exp(v) * factor if job.exponentiate else v - factor
            if width >= lanes:
                store(target, v)
            else:
                store_first(target, width, v)
