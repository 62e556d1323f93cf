"""Rows of logits that lie in memory: softmax and its relatives, and the loss on top of them.

Few classes are worked on many rows at a time (`few_classes`), many row by row (`many_classes`).
Results can be streamed past the caches, which saves reading the lines they overwrite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.modes import LOGSUMEXP
from fastsoftmax._kernels.rows.few_classes import few_classes_scratch, run_few_classes
from fastsoftmax._kernels.rows.many_classes import rows_in_flight, write_head, write_rest
from fastsoftmax._kernels.tasks import draw_task, draw_worker
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES
from fastsoftmax._kernels.vector.simd import (
    advance,
    as_pointer,
    fence,
    lane_count,
    load,
    misalignment,
    pointer,
    splat,
)

# Rows of up to this many vectors are few classes: beyond it three rows in flight are as fast.
FEW_VECTORS = 12
FEW_BYTES = FEW_VECTORS * VECTOR_BYTES
# Shorter rows than this share too many cache lines with their neighbours to be streamed one by
# one: a line written in two parts is read first. They are gathered, STAGED_ROWS at a time.
STREAMED_VECTORS = 32
STAGED_ROWS = 64


class Rows(NamedTuple):
    """Contiguous rows of logits x[i, :], and where their results go."""

    x: int
    out: int  # 0 where only the loss is wanted
    n_rows: int
    n: int
    mode: int
    chunk: int  # rows drawn at once
    streamed: bool
    denominator: float  # of a loss


def scratch_size(n: int, lanes: int, streamed: bool) -> int:
    """Elements of a worker's scratch, at most; the functions that use it know the layouts."""
    if n <= FEW_VECTORS * lanes:
        return few_classes_scratch(n, lanes)
    padded = (n + lanes - 1) // lanes * lanes
    staged = streamed and n <= STREAMED_VECTORS * lanes
    stage = STAGED_ROWS * n + 2 * lanes if staged else 0
    return stage + 4 * (padded + lanes) + 4 * lanes


scratch_size_of = helper(scratch_size)


@helper
def flush(stage, n, out, last):
    """Stream n values to where results belong; return how many wait in ``stage`` for those behind.

    Only whole cache lines are streamed: stored in two parts they would be read first.
    """
    lanes, like = lane_count(stage), load(stage)
    as_they_are = splat(0.0, like), splat(1.0, like), splat(-0.0, like)
    head = min(misalignment(out), n)
    if head > 0:  # as in `rows_in_flight`
        write_head(head, stage, as_they_are, out, stage, True)
    write_rest(head, stage, n, as_they_are, out, stage, True, last)
    return 0 if last else (n - head) % lanes


@helper
def run_rows(job, terms, few, first, scratch):
    """A chunk of rows, from row ``first`` on; the weighted loss of them where there are terms.

    ``few`` is True where a row has FEW_BYTES or less, else None: of an argument that is None or not
    Numba compiles one branch only, and each is half the time that compiling takes.
    """
    stage = pointer(scratch)
    lanes, n, loss = lane_count(stage), job.n, 0.0
    stop = min(first + job.chunk, job.n_rows)
    if few is not None:
        loss = run_few_classes(job, terms, first, stop, stage)
    elif job.streamed and n <= STREAMED_VECTORS * lanes:
        loss = run_staged(job, terms, first, stop, stage)
    else:
        out = advance(as_pointer(job.out, scratch), first * (1 if job.mode == LOGSUMEXP else n))
        loss = rows_in_flight(job, terms, first, stop - first, out, stage, False, loss)
    if job.streamed:
        fence()
    return loss


@helper
def run_staged(job, terms, first, stop, stage):
    """The same, gathering results before they are streamed."""
    lanes, n, like = lane_count(stage), job.n, load(stage)
    free = advance(stage, STAGED_ROWS * n + 2 * lanes)
    loss, waiting = 0.0, 0
    for start in range(first, stop, STAGED_ROWS):
        rows = min(STAGED_ROWS, stop - start)
        target = advance(stage, waiting)
        loss = rows_in_flight(job, terms, start, rows, target, free, True, loss)
        there = advance(as_pointer(job.out, like), start * n - waiting)
        waiting = flush(stage, waiting + rows * n, there, start + rows == stop)
    return loss


@kernel
def draw_rows(job, arrays):
    """Draw chunks of rows and write their results."""
    rows, few = job
    scratch, shared = arrays
    own = scratch[draw_worker(shared)]
    first = draw_task(shared) * rows.chunk
    while first < rows.n_rows:
        run_rows(rows, None, few, first, own)
        first = draw_task(shared) * rows.chunk


@kernel
def draw_losses(job, arrays):
    """Draw chunks of rows; leave the weighted loss of each chunk in ``losses``."""
    rows, terms, few = job
    losses, scratch, shared = arrays
    own = scratch[draw_worker(shared)]
    chunk = draw_task(shared)
    while chunk < len(losses):
        losses[chunk] = run_rows(rows, terms, few, chunk * rows.chunk, own)
        chunk = draw_task(shared)


@helper
def run_direct_share(x, out, n, mode, few, share, n_shares):
    """Run one of ``n_shares`` parts of the rows of flat arrays.

    The job is made here: for few rows making it in Python would cost more than the rows do.
    """
    scratch = np.empty(scratch_size_of(n, lane_count(pointer(x)), False), x.dtype)
    rows = len(x) // n
    first, stop = rows * share // n_shares, rows * (share + 1) // n_shares
    job = Rows(x.ctypes.data, out.ctypes.data, stop, n, mode, stop, False, 1.0)
    run_rows(job, None, few, first, scratch)


@kernel(parallel=True)
def direct_parallel(x, out, n, mode, few, n_shares):
    for share in prange(n_shares):
        run_direct_share(x, out, n, mode, few, share, n_shares)


@kernel
def direct_serial(x, out, n, mode, few):
    run_direct_share(x, out, n, mode, few, 0, 1)
