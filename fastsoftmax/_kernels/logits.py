"""Rows of logits that lie in memory: softmax and its relatives, and the loss on top of them.

Few classes are worked on many rows at a time (`few_classes`, and `few_losses` for the loss), many
row by row (`many_classes`). Results can be streamed past the caches, which saves reading the lines
they overwrite.
"""

from __future__ import annotations

from typing import NamedTuple

from fastsoftmax._kernels.emit import WIDTH
from fastsoftmax._kernels.few_classes import few_classes_scratch, run_few_classes
from fastsoftmax._kernels.few_losses import loss_of_tiles
from fastsoftmax._kernels.jit import helper
from fastsoftmax._kernels.loss import N_STATISTICS
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

# Rows of up to this many vectors are few classes, for softmax and for the loss: beyond it three
# rows in flight are as fast, or faster.
FEW_VECTORS = 12
LOSS_FEW_VECTORS = 4
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
    padded = (n + lanes - 1) // lanes * lanes
    size = few_classes_scratch(n, lanes) if n <= FEW_VECTORS * lanes else 0
    stage = 0
    if n <= LOSS_FEW_VECTORS * lanes or streamed and n <= STREAMED_VECTORS * lanes:
        stage = STAGED_ROWS * n + 2 * lanes
    if n <= LOSS_FEW_VECTORS * lanes:
        return max(size, stage + (2 * padded + N_STATISTICS) * WIDTH * lanes)
    return max(size, stage + 4 * (padded + lanes) + 4 * lanes)


scratch_size_of = helper(scratch_size)


@helper
def flush(stage, n, out, streamed, last):
    """Copy n values to where results belong; return how many wait in ``stage`` for those behind.

    Only whole cache lines are streamed: stored in two parts they would be read first.
    """
    lanes, like = lane_count(stage), load(stage)
    as_they_are = splat(0.0, like), splat(1.0, like), splat(-0.0, like)
    head = min(misalignment(out), n) if streamed else 0
    if head > 0:  # as in `rows_in_flight`
        write_head(head, stage, as_they_are, out, stage, True)
    write_rest(head, stage, n, as_they_are, out, stage, streamed, last)
    return (n - head) % lanes if streamed and not last else 0


@helper
def run_rows(job, terms, first, scratch):
    """A chunk of rows, from row ``first`` on; the weighted loss of them where there are terms."""
    stage = pointer(scratch)
    lanes, n = lane_count(stage), job.n
    stop, loss = min(first + job.chunk, job.n_rows), 0.0
    if terms is None and n <= FEW_VECTORS * lanes:
        run_few_classes(job, first, stop, stage)
    else:
        loss = run_loss_or_long_rows(job, terms, first, stop, stage, scratch)
    if job.streamed:
        fence()
    return loss


@helper
def run_loss_or_long_rows(job, terms, first, stop, stage, like):
    """The same, of the other rows."""
    lanes, n = lane_count(stage), job.n
    few = terms is not None and n <= LOSS_FEW_VECTORS * lanes
    staged = few or (job.streamed and n <= STREAMED_VECTORS * lanes)
    out, width = as_pointer(job.out, like), 1 if job.mode == LOGSUMEXP else n
    step = STAGED_ROWS if staged else job.chunk
    free = advance(stage, STAGED_ROWS * n + 2 * lanes) if staged else stage
    loss, waiting = 0.0, 0
    for start in range(first, stop, step):
        rows = min(step, stop - start)
        target = advance(stage, waiting) if staged else advance(out, start * width)
        if not few:
            loss = rows_in_flight(job, terms, start, rows, target, free, staged, loss)
        elif terms is not None:
            loss += loss_of_tiles(job, terms, start, rows, target, free)
        if staged and job.out != 0:
            there, last = advance(out, start * width - waiting), start + rows == stop
            waiting = flush(stage, waiting + rows * width, there, job.streamed, last)
    return loss
