"""The loops over slots: one parallel, one serial, the same bits from both.

Workers draw slots from a shared counter instead of owning a fixed share, so that a core lost to a
neighbour costs one slot and not half the time. Which worker runs a slot does not matter: a slot
owns its slab and takes its blocks in order.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numba.extending import overload

from fastsoftmax._kernels import columns
from fastsoftmax._kernels.dense import accumulate_dense_block
from fastsoftmax._kernels.jit import OPTIONS, call_native, helper, inlined, kernel, native_address
from fastsoftmax._kernels.logits import Rows, run_rows, scratch_size_of
from fastsoftmax._kernels.modes import LOGSUMEXP, LOSS
from fastsoftmax._kernels.simd import advance, as_int64_pointer, fetch_add, lane_count, pointer
from fastsoftmax._kernels.sparse import SparseProblem, accumulate_sparse_block

# Features whose sums are added up at a time: a multiple of every dense panel, and whole cache lines
# of the gradient.
FINISHED_FEATURES = 64


def next_block(problem, slot, n_slots, after):
    """Return the block that follows block ``after`` (-1: the first one) in a slot."""
    raise NotImplementedError


def accumulate_block(problem, terms, block, following, gradient, scratch):
    """Add a block of rows to a slab; return its loss."""
    raise NotImplementedError


@overload(next_block, jit_options=OPTIONS)
def _next_block(problem, slot, n_slots, after):
    if problem.instance_class is SparseProblem:
        return next_sparse_block
    return next_dense_block


@overload(accumulate_block, jit_options=OPTIONS)
def _accumulate_block(problem, terms, block, following, gradient, scratch):
    if problem.instance_class is SparseProblem:
        return accumulate_sparse_block
    return accumulate_dense_block


def next_dense_block(problem, slot, n_slots, after):
    return (slot - problem.first_block) % n_slots if after < 0 else after + n_slots


def next_sparse_block(problem, slot, n_slots, after):
    owners, block = as_int64_pointer(problem.slots), after + 1
    while block * problem.block_rows < problem.n_rows and owners[block] != slot:
        block += 1
    return block


@inlined
def run_slot(problem, terms, slot, next_slot, slabs, losses, scratch):
    """Add this data's blocks of a slot to the slot's own slab, in order.

    Behind the last one the first of ``next_slot`` is prefetched: with two or three blocks a slot,
    as in a chunk of a stream, a third of the blocks would come from memory unannounced.
    """
    n_slots = len(slabs)
    block = next_block(problem, slot, n_slots, -1)
    while block * problem.block_rows < problem.n_rows:
        if problem.first_block + block == slot:  # the first blocks go to the slots in turn
            if problem.mode != LOSS:
                slabs[slot, :] = 0
            losses[slot] = 0
        following = next_block(problem, slot, n_slots, block)
        ahead = following
        if following * problem.block_rows >= problem.n_rows and next_slot < n_slots:
            ahead = next_block(problem, next_slot, n_slots, -1)
        losses[slot] += accumulate_block(problem, terms, block, ahead, slabs[slot], scratch)
        block = following


@kernel
def draw_slots(problem, terms, slabs, losses, scratch, shared):
    """Draw slots and run them; ``shared`` holds the next one, and how many workers draw."""
    slot = fetch_add(pointer(shared), 1)
    while slot < len(slabs):
        # Most likely; drawn ahead, a slot would wait while another worker is idle.
        next_slot = slot + shared[1]
        run_slot(problem, terms, slot, next_slot, slabs, losses, scratch[0])
        slot = fetch_add(pointer(shared), 1)


@kernel(parallel=True)
def run_workers(address, problem, terms, slabs, losses, scratch, shared):
    for worker in prange(len(scratch)):
        row = scratch[worker : worker + 1]
        call_native(address, (problem, terms, slabs, losses, row, shared))


run_serial = draw_slots


def run_parallel(*arguments):
    """`draw_slots` on as many threads as scratch has rows."""
    run_workers(native_address(draw_slots, arguments), *arguments)


@helper
def add_slots(slabs, start, stop):
    """Sum columns [start, stop) of all slabs into slab 0 by a fixed binary tree."""
    step = 1
    while step < len(slabs):
        for s in range(0, len(slabs) - step, 2 * step):
            for i in range(start, stop):
                slabs[s, i] += slabs[s + step, i]
        step *= 2


@helper
def finish_part(slabs, panel, base, row, classes, features, denominator, twice_l2, W, gradient):
    """gradient[k, d] = Σ_slots slab / denominator + 2·l2·W[k, d] of some classes and features.

    From ``base`` on a slab holds, for every ``panel`` features, those of the first of ``row``
    classes, then of the second, and so on.
    """
    panels = (features[1] - features[0] + panel - 1) // panel
    start = base + features[0] * row
    add_slots(slabs, start, start + panels * panel * row)
    sums = pointer(slabs)
    for k in range(classes[0], classes[1]):
        if panel == 1:  # the loop below, begun anew for each element, took half as long again
            for d in range(features[0], features[1]):
                total = sums[base + d * row + k - classes[0]] / denominator
                gradient[k, d] = total + twice_l2 * W[k, d]
            continue
        for d in range(features[0], features[1], panel):
            total = advance(sums, base + d * row + (k - classes[0]) * panel)
            for i in range(min(panel, features[1] - d)):
                gradient[k, d + i] = total[i] / denominator + twice_l2 * W[k, d + i]


@helper
def finish_step(slabs, layout, step, denominator, twice_l2, W, gradient):
    """`finish_part` of FINISHED_FEATURES features, of both parts of the classes."""
    n_classes, n_features = W.shape
    panel, padded, row, second_row = layout
    split = min(row, n_classes)
    features = step * FINISHED_FEATURES, min((step + 1) * FINISHED_FEATURES, n_features)
    finish_part(slabs, panel, 0, row, (0, split), features, denominator, twice_l2, W, gradient)
    finish_part(
        slabs, panel, padded * row, second_row, (split, n_classes), features,
        denominator, twice_l2, W, gradient,
    )  # fmt: skip


@helper
def finish_bias(slabs, start, denominator, bias_gradient):
    add_slots(slabs, start, start + len(bias_gradient))
    for k in range(len(bias_gradient)):
        bias_gradient[k] = slabs[0, start + k] / denominator


@kernel(parallel=True)
def finish_parallel(slabs, layout, denominator, twice_l2, W, gradient, bias_gradient):
    for step in prange((W.shape[1] + FINISHED_FEATURES - 1) // FINISHED_FEATURES):
        finish_step(slabs, layout, step, denominator, twice_l2, W, gradient)
    finish_bias(slabs, layout[1] * (layout[2] + layout[3]), denominator, bias_gradient)


@kernel
def finish_serial(slabs, layout, denominator, twice_l2, W, gradient, bias_gradient):
    for step in range((W.shape[1] + FINISHED_FEATURES - 1) // FINISHED_FEATURES):
        finish_step(slabs, layout, step, denominator, twice_l2, W, gradient)
    finish_bias(slabs, layout[1] * (layout[2] + layout[3]), denominator, bias_gradient)


@helper
def draw_rows(job, few, scratch, counter):
    first = fetch_add(pointer(counter), job.chunk)
    while first < job.n_rows:
        run_rows(job, None, few, first, scratch)
        first = fetch_add(pointer(counter), job.chunk)


@kernel(parallel=True)
def rows_parallel(job, few, scratch, counter):
    for worker in prange(len(scratch)):
        draw_rows(job, few, scratch[worker], counter)


@kernel
def rows_serial(job, few, scratch, counter):
    draw_rows(job, few, scratch[0], counter)


@helper
def run_share(x, out, n, mode, few, share, n_shares):
    """Run a share of flat arrays' rows: building a job in Python would cost more than they do."""
    scratch = np.empty(scratch_size_of(n, lane_count(pointer(x)), False), x.dtype)
    rows = len(x) // n
    first, stop = rows * share // n_shares, rows * (share + 1) // n_shares
    job = Rows(x.ctypes.data, out.ctypes.data, stop, n, mode, stop, False, 1.0)
    run_rows(job, None, few, first, scratch)


@kernel(parallel=True)
def direct_parallel(x, out, n, mode, few, n_shares):
    for share in prange(n_shares):
        run_share(x, out, n, mode, few, share, n_shares)


@kernel
def direct_serial(x, out, n, mode, few, n_shares):
    run_share(x, out, n, mode, few, 0, 1)


@kernel(parallel=True)
def columns_parallel(call, like, workers):
    """Softmax along the middle of three axes: ``call`` is what `columns.layout` takes."""
    job = columns.layout_of(call, lane_count(pointer(like)))
    scratch, wide, table, counter = columns.room(job, like, workers)
    for worker in prange(workers):  # Numba cannot hand a named tuple made here to a thread
        columns.sweep_first(call, worker, scratch, wide, table, counter)
    if job.whole:
        return
    for task in prange(columns.finish_count(job)):
        columns.finish_task(call, task, wide, table)
    if job.mode != LOGSUMEXP:
        columns.complete_tables(job, table)
        for _ in prange(workers):
            columns.sweep_again(call, table, counter)


@kernel
def columns_serial(call, like, workers):
    job = columns.layout_of(call, lane_count(pointer(like)))
    scratch, wide, table, counter = columns.room(job, like, workers)
    columns.sweep_first(call, 0, scratch, wide, table, counter)
    for task in range(columns.finish_count(job)):
        columns.finish_task(call, task, wide, table)
    if not job.whole and job.mode != LOGSUMEXP:
        columns.complete_tables(job, table)
        columns.sweep_again(call, table, counter)


@helper
def draw_chunks(job, terms, few, losses, scratch, counter):
    chunk = fetch_add(pointer(counter), 1)
    while chunk < len(losses):
        losses[chunk] = run_rows(job, terms, few, chunk * job.chunk, scratch)
        chunk = fetch_add(pointer(counter), 1)


@kernel(parallel=True)
def losses_parallel(job, terms, few, losses, scratch, counter):
    for worker in prange(len(scratch)):
        draw_chunks(job, terms, few, losses, scratch[worker], counter)


@kernel
def losses_serial(job, terms, few, losses, scratch, counter):
    draw_chunks(job, terms, few, losses, scratch[0], counter)
