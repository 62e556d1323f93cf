"""Softmax and its relatives along an axis that is not the last: columns in lanes, nothing moved.

The array is (outer, n, inner), reduced over n; a single long row is one of inner = 1. It is read in
rows of ``period`` columns: several rows of few columns count as one long row, so that no lane is
empty, and their sums are put together at the end. Where a strip of columns fits the cache, one task
does all there is to do with it. Otherwise tasks reduce chunks of rows to a maximum and two sums a
column, which are merged in order, and in a second sweep write the results.

Results are written in whole cache lines that begin wherever lines do: a line across the border of
two rows takes shifts and factors of both, as those of the first columns follow those of the last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.modes import LOGSUMEXP, SOFTMAX
from fastsoftmax._kernels.rows.column_sums import finish_columns, fold, reduce_piece, widen
from fastsoftmax._kernels.vector.elementary import exp
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    as_pointer,
    fence,
    fetch_add,
    lane_count,
    load,
    load_first,
    misalignment,
    pointer,
    prefetch,
    splat,
    store,
    store_first,
    stream,
)

# Rows summed in registers before they meet the running sums. Where rows are a multiple of half a
# page apart, more lines of a column push each other out of L1: (64, 1024) took 28 us instead of 21.
BLOCK, ALIASED_BLOCK, ALIASED_BYTES = 32, 8, 2048
STRIP = 512
# Rows of fewer columns are read several at a time.
SHORT_PERIOD = 128
LONG_PERIOD = 1024
# Elements of a strip that one task reads twice, from the cache the second time.
KEPT = 1 << 18
KEPT_VECTORS = 4
WHOLE_TASKS = 8
MAX_CHUNKS, MAX_CHUNK = 64, 8192
FINISHED = 128
# Elements drawn at once, and so few that they are one task anyway.
DRAWN, FEW = 1 << 17, 4096
AHEAD = 1024
WRITTEN = 4096


class Columns(NamedTuple):
    """A contiguous (outer, n, inner) array and how its columns are summed."""

    x: int
    out: int
    outer: int
    inner: int
    total: int  # n * inner
    mode: int
    streamed: bool
    whole: bool  # a task does everything with its strip
    period: int  # columns of a row as it is read: a multiple of inner
    n_rows: int  # such rows, the last perhaps shorter
    strip: int
    n_strips: int
    block: int  # rows summed in registers
    chunk: int  # rows of a task
    n_chunks: int
    drawn: int  # tasks drawn at once
    written: int  # columns of a strip in the second sweep
    padded: int  # columns of a row of sums


@helper
def strips_of(period, width, lanes):
    """How many strips there are; the last also takes what is less than a vector.

    A line across two borders would need columns of three strips.
    """
    return max((period + width - lanes) // width, 1)


def layout(call, lanes):
    """How the columns of an array are summed: a pure function of its shape."""
    x, out, outer, n, inner, mode, streamed = call
    total = n * inner
    group = KEPT_VECTORS * lanes
    share = (outer * inner // WHOLE_TASKS + group) // group * group
    strip = min(KEPT // n // group * group, STRIP, share)
    few = n * inner < FEW and inner >= lanes
    whole = strip >= group and (few or outer * inner >= 16 * lanes)
    period = inner
    if not whole:
        strip = STRIP
        times = 1
        while times * inner < SHORT_PERIOD or times * inner % lanes != 0:
            times *= 2
        if times * inner <= LONG_PERIOD:
            period = times * inner
            strip = period  # their sums are folded by one task
    n_rows = (total + period - 1) // period
    strip = min(strip, period)
    n_strips = strips_of(period, strip, lanes)
    chunk, drawn = n_rows, 1
    if whole:
        drawn = max(min(DRAWN // (n * strip), outer * n_strips // (2 * WHOLE_TASKS)), 1)
    else:
        n_chunks = max(min(MAX_CHUNKS // (outer * n_strips), n_rows // (2 * BLOCK)), 1)
        chunk = min((n_rows + n_chunks - 1) // n_chunks, MAX_CHUNK)
    n_chunks = (n_rows + chunk - 1) // chunk
    block = ALIASED_BLOCK if period % (ALIASED_BYTES // VECTOR_BYTES * lanes) == 0 else BLOCK
    written = period if period <= WRITTEN else strip
    padded = ((strip if whole else period) + 4 * lanes - 1) // lanes * lanes
    return Columns(
        x, out, outer, inner, total, mode, streamed, whole, period, n_rows, strip, n_strips,
        block, chunk, n_chunks, drawn, written, padded,
    )  # fmt: skip


layout_of = helper(layout)


# ----------------------------------------------------------------------------------- their results


@helper
def copy_columns(source, n, target):
    lanes = lane_count(source)
    for i in range(0, n, lanes):
        store_first(advance(target, i), n - i, load(advance(source, i)))


@helper
def repeat_columns(job, table):
    """Let the table go on with its first columns, up to a vector beyond the period."""
    for k in range(2):
        values = advance(table, k * job.padded)
        for i in range(job.inner, job.period + lane_count(table)):
            values[i] = values[i - job.inner]


@helper
def result(job, v, shift, factor):
    v = v - load(shift)
    return exp(v) * load(factor) if job.mode == SOFTMAX else v - load(factor)


@helper
def write_some(job, x, out, n, shifts, factors):
    """The first n results of a vector, n being less than its lanes."""
    v = load_first(x, n, splat(0.0, load(shifts)))
    store_first(out, n, result(job, v, shifts, factors))


@helper
def write_piece(job, x, out, first, stop, left, right, table, ahead):
    """Write columns [left, right) of some rows; where lines count, from one line to another."""
    lanes = lane_count(x)
    lines = job.streamed or not job.whole
    for i in range(first, stop):
        row = i * job.period
        start, end = row + left, min(row + right, job.total)
        shifts = advance(table, -start)
        factors = advance(shifts, job.padded)
        if lines:
            if start == 0:
                head = min(misalignment(out), job.total)
                if head > 0:
                    write_some(job, x, out, head, shifts, factors)
            start = min(start + misalignment(advance(out, start)), job.total)
            end = min(end + misalignment(advance(out, end)), job.total)
        for p in range(start, end - lanes + 1, lanes):
            source, target = advance(x, p), advance(out, p)
            prefetch(advance(source, ahead))
            v = result(job, load(source), advance(shifts, p), advance(factors, p))
            if job.streamed:
                stream(target, v)
            else:
                store(target, v)
        rest = (end - start) % lanes
        if rest > 0:
            p = end - rest
            write_some(
                job, advance(x, p), advance(out, p), rest, advance(shifts, p), advance(factors, p)
            )


# -------------------------------------------------------------------------------------------- tasks


@helper
def scratch_size_of(job, lanes):
    """Elements of a worker's scratch: a block of masked vectors, and sums."""
    return BLOCK * lanes + 3 * job.padded


@helper
def begin(array):
    """Where the first cache line of an array begins."""
    return advance(pointer(array), misalignment(pointer(array)))


@helper
def piece_of(job, task, width, lanes):
    """A task's part: (outer, chunk, first row, row behind the last, first column, behind it)."""
    n_strips = strips_of(job.period, width, lanes)
    strip, chunk = task % n_strips, task // n_strips % job.n_chunks
    outer = task // (n_strips * job.n_chunks)
    first, stop = chunk * job.chunk, min((chunk + 1) * job.chunk, job.n_rows)
    left = strip * width
    right = left + width if strip < n_strips - 1 else job.period
    return outer, chunk, first, stop, left, right


@helper
def first_task(job, task, scratch, wide, table):
    """Reduce a piece to ``wide``, or do everything that belongs to a strip."""
    lanes = lane_count(table)
    outer, chunk, first, stop, left, right = piece_of(job, task, job.strip, lanes)
    like, n = load(table), right - left
    x = advance(as_pointer(job.x, like), outer * job.total)
    sums = advance(scratch, BLOCK * lanes)
    borders = job.whole and job.streamed and job.n_strips > 1
    for border in range(2 if borders else 1):
        start, end = left, right
        if border == 1:  # its line takes the first columns of the next strip, or row
            start = right if right < job.inner else 0
            end = start + lanes
        reduce_piece(job, x, first, stop, start, end, advance(sums, border * n), scratch)
    if not job.whole:
        target = advance(wide, (outer * job.n_chunks + chunk) * 3 * job.padded)
        widen(sums, job.padded, n, advance(target, left), job.padded)
        fold(job, target)
        return
    width = n + lanes if borders else n
    widen(sums, job.padded, width, wide, job.padded)
    finish_columns(job, wide, 1, width, table)
    if job.mode == LOGSUMEXP:
        target = advance(as_pointer(job.out, like), outer * job.inner + left)
        copy_columns(advance(table, job.padded), n, target)
        return
    if job.n_strips == 1:
        repeat_columns(job, table)
    out = advance(as_pointer(job.out, like), outer * job.total)
    write_piece(job, x, out, first, stop, left, right, table, job.strip)


@helper
def finish_task(call, task, sums, tables):
    """Merge the chunks of some columns."""
    job = layout_of(call, lane_count(pointer(tables)))
    wide, table = begin(sums), begin(tables)
    n_pieces = (job.inner + FINISHED - 1) // FINISHED
    outer, left = task // n_pieces, task % n_pieces * FINISHED
    n = min(FINISHED, job.inner - left)
    source = advance(wide, outer * job.n_chunks * 3 * job.padded + left)
    target = advance(table, outer * 2 * job.padded + left)
    finish_columns(job, source, job.n_chunks, n, target)
    if job.mode == LOGSUMEXP:
        out = advance(as_pointer(job.out, load(table)), outer * job.inner + left)
        copy_columns(advance(target, job.padded), n, out)


@helper
def write_task(job, task, table):
    outer, _, first, stop, left, right = piece_of(job, task, job.written, lane_count(table))
    like = load(table)
    x = advance(as_pointer(job.x, like), outer * job.total)
    out = advance(as_pointer(job.out, like), outer * job.total)
    values = advance(table, outer * 2 * job.padded + left)
    write_piece(job, x, out, first, stop, left, right, values, AHEAD)


# ------------------------------------------------------------------------------------------ workers


@helper
def room(job, like, workers):
    """Scratch of the workers, float64 sums and the table, each a row more than needed."""
    lanes = lane_count(pointer(like))
    parts = workers if job.whole else job.outer * job.n_chunks
    tables = workers if job.whole else job.outer
    scratch = np.empty(workers * scratch_size_of(job, lanes) + lanes, like.dtype)
    wide = np.empty(parts * 3 * job.padded + LANES_64, np.float64)
    table = np.empty(tables * 2 * job.padded + lanes, like.dtype)
    counter = np.empty(2, np.int64)
    counter[0], counter[1] = 0, 0
    return scratch, wide, table, counter


@helper
def sweep_first(call, worker, scratch, wide, table, counter):
    """Draw strips to finish, or pieces to reduce."""
    job = layout_of(call, lane_count(pointer(table)))
    p, sums, values = begin(scratch), begin(wide), begin(table)
    p = advance(p, worker * scratch_size_of(job, lane_count(p)))
    if job.whole:
        sums = advance(sums, worker * 3 * job.padded)
        values = advance(values, worker * 2 * job.padded)
    n_tasks = job.outer * job.n_chunks * job.n_strips
    first = fetch_add(pointer(counter), job.drawn)
    while first < n_tasks:
        for task in range(first, min(first + job.drawn, n_tasks)):
            first_task(job, task, p, sums, values)
        first = fetch_add(pointer(counter), job.drawn)
    fence()


@helper
def sweep_again(call, table, counter):
    """Draw pieces to write."""
    job = layout_of(call, lane_count(pointer(table)))
    n_tasks = (
        job.outer * job.n_chunks * strips_of(job.period, job.written, lane_count(pointer(table)))
    )
    task = fetch_add(advance(pointer(counter), 1), 1)
    while task < n_tasks:
        write_task(job, task, begin(table))
        task = fetch_add(advance(pointer(counter), 1), 1)
    fence()


@helper
def finish_count(job):
    return 0 if job.whole else job.outer * ((job.inner + FINISHED - 1) // FINISHED)


@helper
def complete_tables(job, table):
    for outer in range(job.outer):
        repeat_columns(job, advance(begin(table), outer * 2 * job.padded))


@kernel(parallel=True)
def columns_parallel(call, like, workers):
    """Softmax along the middle of three axes: ``call`` is what `layout` takes."""
    job = layout_of(call, lane_count(pointer(like)))
    scratch, wide, table, counter = room(job, like, workers)
    for worker in prange(workers):  # Numba cannot hand a named tuple made here to a thread
        sweep_first(call, worker, scratch, wide, table, counter)
    if job.whole:
        return
    for task in prange(finish_count(job)):
        finish_task(call, task, wide, table)
    if job.mode != LOGSUMEXP:
        complete_tables(job, table)
        for _ in prange(workers):
            sweep_again(call, table, counter)


@kernel
def columns_serial(call, like, workers):
    job = layout_of(call, lane_count(pointer(like)))
    scratch, wide, table, counter = room(job, like, workers)
    sweep_first(call, 0, scratch, wide, table, counter)
    for task in range(finish_count(job)):
        finish_task(call, task, wide, table)
    if not job.whole and job.mode != LOGSUMEXP:
        complete_tables(job, table)
        sweep_again(call, table, counter)
