"""The loops over slots: one parallel, one serial, the same bits from both."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastsoftmax._kernels.dense import accumulate_block
from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.simd import fetch_add, pointer


@helper
def run_slot(problem, slot, slabs, losses, scratch):
    """Blocks slot, slot + S, slot + 2S, ... in order into the slot's own slab."""
    slab = slabs[slot]
    slab[:] = 0
    loss = 0.0
    n_blocks = (problem.n_rows + problem.block_rows - 1) // problem.block_rows
    for block in range(slot, n_blocks, len(slabs)):
        loss += accumulate_block(problem, block, slab, scratch)
    losses[slot] = loss


@helper
def work(problem, slabs, losses, scratch, counter):
    slot = fetch_add(pointer(counter), 1)
    while slot < len(slabs):
        run_slot(problem, slot, slabs, losses, scratch)
        slot = fetch_add(pointer(counter), 1)


@kernel(parallel=True)
def run_parallel(problem, slabs, losses, scratch, counter):
    for worker in prange(len(scratch)):
        work(problem, slabs, losses, scratch[worker], counter)


@kernel
def run_serial(problem, slabs, losses, scratch, counter):
    work(problem, slabs, losses, scratch[0], counter)
