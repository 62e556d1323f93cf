"""Rows of logits that lie in memory: softmax and its relatives, and the loss on top of them.

Few classes are worked on many rows at a time (`few_classes`), many row by row (`many_classes`).
Results can be streamed past the caches, which saves reading the lines they overwrite.
"""

from __future__ import annotations

from typing import NamedTuple

from fastsoftmax._kernels.emit import VECTOR_BYTES
from fastsoftmax._kernels.few_classes import few_classes_scratch, run_few_classes
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.many_classes import rows_in_flight, write_head, write_rest
from fastsoftmax._kernels.modes import LOGSUMEXP
from fastsoftmax._kernels.simd import (
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
