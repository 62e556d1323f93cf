"""Softmax and its relatives along an axis that is not the last: columns in lanes, nothing moved.

The array is (outer, n, inner), reduced over n; a single long row is one of inner = 1. Each of the
``outer`` matrices is read in rows of ``period`` columns. A task takes a strip of them:

    whole       the strip fits the cache, and the task does all there is to do with its columns;
    not whole   rows are cut into chunks, and a task sums the strip of one chunk. The sums are
                merged in order, and in a second sweep tasks write results.

Where rows are short and not whole, several are read as one, so that no lane is empty: the period is
then a multiple of ``inner``, and the sums of columns that lie ``inner`` apart are merged.

For each column a table holds a shift and a factor to write results with. Those are written in whole
vectors of memory, wherever in a row these begin. One that lies across the end of a row, or of a
strip, takes columns from both sides: in the table the columns of the next strip follow, or behind
the last one the first ones again.
"""

from typing import NamedTuple

import numpy as np

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.modes import LOGSUMEXP, SOFTMAX
from fastsoftmax._kernels.rows.column_sums import Area, finish_columns, fold, sum_area, widen
from fastsoftmax._kernels.rows.results import put
from fastsoftmax._kernels.tasks import draw_task, draw_worker, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES
from fastsoftmax._kernels.vector.exp_log import exp
from fastsoftmax._kernels.vector.simd import (
    LANES_64,
    advance,
    as_pointer,
    fence,
    lane_count,
    load,
    load_first,
    misalignment,
    pointer,
    prefetch,
    splat,
    store_first,
)

# Rows summed in registers before they meet the running sums. Where rows are a multiple of half a
# page apart, more lines of a column push each other out of L1: (64, 1024) took 28 us instead of 21.
BLOCK, ALIASED_BLOCK, ALIASED_BYTES = 32, 8, 2048
# Columns of a strip, at most.
STRIP = 512
# Rows of fewer columns than the first are read several at a time, as one of at most the second.
SHORT_PERIOD, LONG_PERIOD = 128, 1024
# Elements of a strip that a task reads twice, the second time from the cache. Such strips have a
# multiple of KEPT_VECTORS vectors, and are so narrow that there are WHOLE_TASKS of them, or more.
KEPT, KEPT_VECTORS, WHOLE_TASKS = 1 << 18, 4, 8
# Chunks of all matrices and strips together, and rows of a chunk, at most.
MAX_CHUNKS, MAX_CHUNK = 64, 8192
# Elements drawn at once. Rows of a matrix of less than FEW are not cut, however few its columns.
DRAWN, FEW = 1 << 17, 4096
# Rows of up to this many columns are one strip in the second sweep.
WRITTEN = 4096
# Columns whose sums one task merges.
FINISHED = 128
# How many elements ahead the second sweep prefetches.
AHEAD = 1024


class ColumnsJob(NamedTuple):
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
    strip: int  # columns of a strip
    n_strips: int
    block: int  # rows summed in registers
    chunk: int  # rows of a task
    n_chunks: int
    drawn: int  # tasks drawn at once
    written: int  # columns of a strip in the second sweep
    padded: int  # elements of a row of sums


@helper
def count_strips(period, width, lanes):
    """How many strips there are; the last one also takes a rest of less than a vector.

    A vector across both borders of a strip would need the columns of three.
    """
    return max((period + width - lanes) // width, 1)


@helper
def area_of(job, task, width, lanes):
    """The area of a task, where strips are ``width`` columns wide."""
    n_strips = count_strips(job.period, width, lanes)
    strip, chunk = task % n_strips, task // n_strips % job.n_chunks
    left, first = strip * width, chunk * job.chunk
    right = left + width if strip < n_strips - 1 else job.period
    outer = task // (n_strips * job.n_chunks)
    return Area(outer, first, min(first + job.chunk, job.n_rows), left, right)


@helper
def make_columns_job(call, lanes):
    """Decide how the columns of an array are summed; ``call`` is what the kernels are given."""
    x, out, outer, n, inner, mode, streamed = call
    total = n * inner
    unit = KEPT_VECTORS * lanes
    widest = (outer * inner // WHOLE_TASKS + unit) // unit * unit
    strip = min(KEPT // n // unit * unit, STRIP, widest)
    few = n * inner < FEW and inner >= lanes
    whole = strip >= unit and (few or outer * inner >= 16 * lanes)
    period = inner
    if not whole:
        strip = STRIP
        times = 1
        while times * inner < SHORT_PERIOD or times * inner % lanes != 0:
            times *= 2
        if times * inner <= LONG_PERIOD:
            period = times * inner
            strip = period  # one task merges their sums
    n_rows = (total + period - 1) // period
    strip = min(strip, period)
    n_strips = count_strips(period, strip, lanes)
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
    return ColumnsJob(
        x, out, outer, inner, total, mode, streamed, whole, period, n_rows, strip, n_strips,
        block, chunk, n_chunks, drawn, written, padded,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------- results


@helper
def repeat_columns(job, table):
    """Let the table go on with its first columns, up to a vector beyond the period."""
    for k in range(2):
        values = advance(table, k * job.padded)
        for i in range(job.inner, job.period + lane_count(table)):
            values[i] = values[i - job.inner]


@helper
def result(job, v, shift, factor):
    """Results of a vector of logits; shifts and factors by pointer."""
    v = v - load(shift)
    return exp(v) * load(factor) if job.mode == SOFTMAX else v - load(factor)


@helper
def write_some(job, x, out, p, n, shifts, factors):
    """The first n results of the vector at element p, n being less than its lanes."""
    shift, factor = advance(shifts, p), advance(factors, p)
    v = load_first(advance(x, p), n, splat(0.0, load(shift)))
    store_first(advance(out, p), n, result(job, v, shift, factor))


@helper
def write_area(job, area, table, ahead):
    """Write an area's results; ``table`` begins with its first column.

    Where they are streamed, and in the second sweep, each row of the area is written from the first
    whole vector of memory in it to the first one behind it.
    """
    like = load(table)
    lanes = lane_count(table)
    x = advance(as_pointer(job.x, like), area.outer * job.total)
    out = advance(as_pointer(job.out, like), area.outer * job.total)
    by_vectors = job.streamed or not job.whole
    for i in range(area.first, area.stop):
        row = i * job.period
        start, end = row + area.left, min(row + area.right, job.total)
        shifts = advance(table, -start)
        factors = advance(shifts, job.padded)
        if by_vectors:
            if start == 0:  # no row before this one writes the matrix's first elements
                head = min(misalignment(out), job.total)
                if head > 0:
                    write_some(job, x, out, 0, head, shifts, factors)
            start = min(start + misalignment(advance(out, start)), job.total)
            end = min(end + misalignment(advance(out, end)), job.total)
        for p in range(start, end - lanes + 1, lanes):
            source = advance(x, p)
            prefetch(advance(source, ahead))
            v = result(job, load(source), advance(shifts, p), advance(factors, p))
            put(advance(out, p), v, job.streamed)
        rest = (end - start) % lanes
        if rest > 0:
            write_some(job, x, out, end - rest, rest, shifts, factors)


# -------------------------------------------------------------------------------------------- tasks


@helper
def scratch_size_of(job, lanes):
    """Elements of a worker's scratch: a block of masked vectors, and sums."""
    return BLOCK * lanes + 3 * job.padded


@helper
def first_vector(array):
    """Where the first whole vector of memory in an array begins."""
    return advance(pointer(array), misalignment(pointer(array)))


@helper
def first_task(job, task, scratch, wide, table):
    """Sum an area and leave its sums in ``wide``, or do everything that belongs to a strip."""
    lanes = lane_count(table)
    area = area_of(job, task, job.strip, lanes)
    like, n = load(table), area.right - area.left
    x = advance(as_pointer(job.x, like), area.outer * job.total)
    sums = advance(scratch, BLOCK * lanes)
    # A vector across the end of the strip takes the first columns of the next strip, or row.
    borders = job.whole and job.streamed and job.n_strips > 1
    for border in range(2 if borders else 1):
        left, right = area.left, area.right
        if border == 1:
            left = right if right < job.inner else 0
            right = left + lanes
        columns = Area(area.outer, area.first, area.stop, left, right)
        sum_area(job, columns, x, advance(sums, border * n), scratch)
    if not job.whole:
        target = advance(wide, task // job.n_strips * 3 * job.padded)
        widen(sums, job.padded, n, advance(target, area.left), job.padded)
        fold(job, target)
        return
    width = n + lanes if borders else n
    widen(sums, job.padded, width, wide, job.padded)
    finish_columns(job, wide, 1, area.outer * job.inner + area.left, width, table)
    if job.mode != LOGSUMEXP:
        if job.n_strips == 1:
            repeat_columns(job, table)
        write_area(job, area, table, job.strip)


@helper
def finish_task(job, task, wide, table):
    """Merge the chunks' sums of some columns."""
    n_tasks = (job.inner + FINISHED - 1) // FINISHED  # of a matrix
    outer, left = task // n_tasks, task % n_tasks * FINISHED
    n = min(FINISHED, job.inner - left)
    source = advance(wide, outer * job.n_chunks * 3 * job.padded + left)
    target = advance(table, outer * 2 * job.padded + left)
    finish_columns(job, source, job.n_chunks, outer * job.inner + left, n, target)


# ------------------------------------------------------------------------------------------ workers


@helper
def allocate(job, like, workers):
    """Scratch of the workers, float64 sums, and tables; see `first_vector`."""
    lanes = lane_count(pointer(like))
    n_sums = workers if job.whole else job.outer * job.n_chunks
    n_tables = workers if job.whole else job.outer
    scratch = np.empty(workers * scratch_size_of(job, lanes) + lanes, like.dtype)
    wide = np.empty(n_sums * 3 * job.padded + LANES_64, np.float64)
    table = np.empty(n_tables * 2 * job.padded + lanes, like.dtype)
    return scratch, wide, table


@helper
def _sweep_first(job, scratch, wide, table, counters):
    """Draw strips to finish, or areas to sum."""
    worker = draw_worker(counters)
    p, sums, values = first_vector(scratch), first_vector(wide), first_vector(table)
    p = advance(p, worker * scratch_size_of(job, lane_count(p)))
    if job.whole:
        sums = advance(sums, worker * 3 * job.padded)
        values = advance(values, worker * 2 * job.padded)
    n_tasks = job.outer * job.n_chunks * job.n_strips
    first = draw_task(counters) * job.drawn
    while first < n_tasks:
        for task in range(first, min(first + job.drawn, n_tasks)):
            first_task(job, task, p, sums, values)
        first = draw_task(counters) * job.drawn
    fence()


@helper
def _finish_drawn_columns(job, wide, table, counters):
    """Draw columns whose sums are merged."""
    n_tasks = job.outer * ((job.inner + FINISHED - 1) // FINISHED)
    task = draw_task(counters)
    while task < n_tasks:
        finish_task(job, task, first_vector(wide), first_vector(table))
        task = draw_task(counters)


@helper
def _sweep_again(job, table, counters):
    """Draw areas to write."""
    lanes = lane_count(pointer(table))
    n_tasks = job.outer * job.n_chunks * count_strips(job.period, job.written, lanes)
    task = draw_task(counters)
    while task < n_tasks:
        area = area_of(job, task, job.written, lanes)
        values = advance(first_vector(table), area.outer * 2 * job.padded + area.left)
        write_area(job, area, values, AHEAD)
        task = draw_task(counters)
    fence()


@kernel
def run_columns(call, like, crew):
    """Run all tasks of an array; ``call`` is what `make_columns_job` takes, ``like`` its dtype."""
    job = make_columns_job(call, lane_count(pointer(like)))
    scratch, wide, table = allocate(job, like, crew.n_workers)
    share_out(pack_call(_sweep_first, (job, scratch, wide, table)), crew)
    if job.whole:
        return
    share_out(pack_call(_finish_drawn_columns, (job, wide, table)), crew)
    if job.mode != LOGSUMEXP:
        for outer in range(job.outer):
            repeat_columns(job, advance(first_vector(table), outer * 2 * job.padded))
        share_out(pack_call(_sweep_again, (job, table)), crew)
