"""Kernels for rows of logits that lie in memory: softmax and its relatives, and losses.

Few classes are worked on many rows at a time (`few_classes`), many row by row (`many_classes`). The
two are compiled apart, by an argument ``few`` that is True or None: of a branch on an argument that
may be None Numba compiles one side only, and each side is half of the time that compiling takes.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from fastsoftmax._kernels.jit import HELPER_OPTIONS, helper, kernel
from fastsoftmax._kernels.modes import LOGSUMEXP
from fastsoftmax._kernels.rows.few_classes import few_classes_scratch, run_few_classes
from fastsoftmax._kernels.rows.many_classes import rows_in_flight
from fastsoftmax._kernels.rows.results import flush
from fastsoftmax._kernels.tasks import draw_task, draw_worker, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES
from fastsoftmax._kernels.vector.simd import advance, as_pointer, fence, lane_count, load, pointer

# Rows of up to so many bytes are few classes: beyond, three rows in flight are as fast.
FEW_BYTES = 12 * VECTOR_BYTES
# Results of rows of up to so many vectors are gathered, BUFFERED_ROWS at a time, before they are
# streamed: row by row, too many of their vectors would have to be put together of two rows.
BUFFERED_VECTORS = 32
BUFFERED_ROWS = 64


class RowsJob(NamedTuple):
    """Contiguous rows of logits, and what is made of them: addresses, and numbers of elements."""

    x: int
    out: int  # 0 where only the loss is wanted
    n_rows: int
    n: int  # logits of a row
    mode: int
    chunk: int  # rows drawn at once
    streamed: bool  # results go past the caches
    denominator: float  # of the gradient of a loss


@register_jitable(**HELPER_OPTIONS)
def scratch_size(n: int, lanes: int, streamed: bool) -> int:
    """Elements of a worker's scratch, at most; the functions that use it know the layouts."""
    if n <= FEW_BYTES // VECTOR_BYTES * lanes:
        return few_classes_scratch(n, lanes)
    padded = (n + lanes - 1) // lanes * lanes
    buffer = BUFFERED_ROWS * n + 2 * lanes if streamed and n <= BUFFERED_VECTORS * lanes else 0
    return buffer + 4 * (padded + lanes) + 4 * lanes


@helper
def run_chunk(job, terms, few, first, scratch):
    """Run the chunk that begins at row ``first``; return its weighted loss if there are terms."""
    start = pointer(scratch)
    stop, loss = min(first + job.chunk, job.n_rows), 0.0
    if few is not None:
        loss = run_few_classes(job, terms, first, stop, start)
    elif job.streamed and job.n <= BUFFERED_VECTORS * lane_count(start):
        loss = run_buffered(job, terms, first, stop, start)
    else:
        results = first if job.mode == LOGSUMEXP else first * job.n
        out = advance(as_pointer(job.out, scratch), results)
        loss = rows_in_flight(job, terms, first, stop - first, out, job.streamed, start, loss)
    if job.streamed:
        fence()
    return loss


@helper
def run_buffered(job, terms, first, stop, buffer):
    """Run a chunk of many classes, gathering results in a buffer before they are streamed.

    The rest of the scratch lies behind the buffer.
    """
    n, like = job.n, load(buffer)
    scratch = advance(buffer, BUFFERED_ROWS * n + 2 * lane_count(buffer))
    loss, waiting = 0.0, 0
    for start in range(first, stop, BUFFERED_ROWS):
        rows = min(BUFFERED_ROWS, stop - start)
        results = advance(buffer, waiting)
        loss = rows_in_flight(job, terms, start, rows, results, False, scratch, loss)
        out = advance(as_pointer(job.out, like), start * n - waiting)
        waiting = flush(buffer, waiting + rows * n, out, start + rows == stop)
    return loss


@helper
def _run_drawn_chunks(job, arrays, counters):
    """Draw chunks of rows; write results, and leave the weighted loss of each in ``losses``."""
    rows, terms, few = job
    losses, scratch = arrays
    own = scratch[draw_worker(counters)]
    chunk = draw_task(counters)
    while chunk < len(losses):
        losses[chunk] = run_chunk(rows, terms, few, chunk * rows.chunk, own)
        chunk = draw_task(counters)


@kernel
def run_chunks(job, arrays, crew):
    """Run all chunks; ``job`` is the rows, their terms and ``few``."""
    share_out(pack_call(_run_drawn_chunks, (job, arrays)), crew)


@helper
def _run_drawn_rows(x, out, n, mode, few, chunk, counters):
    """Draw chunks of the rows of n logits in a flat array.

    The job is made here: for few rows making it in Python would cost more than the rows do.
    """
    scratch = np.empty(scratch_size(n, lane_count(pointer(x)), False), x.dtype)
    n_rows = len(x) // n
    job = RowsJob(x.ctypes.data, out.ctypes.data, n_rows, n, mode, chunk, False, 1.0)
    first = draw_task(counters) * chunk
    while first < n_rows:
        run_chunk(job, None, few, first, scratch)
        first = draw_task(counters) * chunk


@kernel
def run_flat_rows(x, out, n, mode, few, chunk, crew):
    """Run all rows of a flat array, ``chunk`` of them at a time."""
    share_out(pack_call(_run_drawn_rows, (x, out, n, mode, few, chunk)), crew)
