"""The loop over slots: every slot adds its blocks of rows to its own slab, in order.

Which worker runs a slot does not matter, so every number of workers ends in the same bits.
"""

from numba.extending import overload

from fastsoftmax._kernels.jit import HELPER_OPTIONS, helper, kernel
from fastsoftmax._kernels.linear.dense import accumulate_dense_block
from fastsoftmax._kernels.linear.sparse import SparseProblem, accumulate_sparse_block
from fastsoftmax._kernels.tasks import draw_task, draw_worker, share_out
from fastsoftmax._kernels.vector.calls import pack_call
from fastsoftmax._kernels.vector.simd import as_int64_pointer


def next_block(problem, slot, n_slots, after):
    """Return the block that follows block ``after`` (-1: the first one) in a slot."""
    raise NotImplementedError


def accumulate_block(problem, terms, number, following, gradient, fresh, scratch):
    """Add block ``number`` to a slab, in which nothing is if it is fresh; return its loss."""
    raise NotImplementedError


@overload(next_block, jit_options=HELPER_OPTIONS)
def _next_block(problem, slot, n_slots, after):
    """Choose by the type of the problem."""
    return next_sparse_block if problem.instance_class is SparseProblem else next_dense_block


@overload(accumulate_block, jit_options=HELPER_OPTIONS)
def _accumulate_block(problem, terms, number, following, gradient, fresh, scratch):
    """Choose by the type of the problem."""
    sparse = problem.instance_class is SparseProblem
    return accumulate_sparse_block if sparse else accumulate_dense_block


def next_dense_block(problem, slot, n_slots, after):
    """Runs of dense blocks go to the slots in turn."""
    run = (problem.first_block + after + 1) // problem.run_blocks
    runs_until = (slot - run) % n_slots
    if runs_until == 0:
        return after + 1
    return (run + runs_until) * problem.run_blocks - problem.first_block


def next_sparse_block(problem, slot, n_slots, after):
    """Sparse blocks go where `assign_blocks` has put them."""
    owners, block = as_int64_pointer(problem.slots), after + 1
    while block * problem.block_rows < problem.n_rows and owners[block] != slot:
        block += 1
    return block


@helper
def run_slot(problem, terms, slot, next_slot, slabs, losses, scratch):
    """Add this chunk's blocks of a slot to the slot's own slab, in order.

    While the last one is worked on, the first block of ``next_slot`` is prefetched: a chunk of a
    stream has two or three blocks a slot, and a third of them would not be prefetched otherwise.
    """
    n_slots = len(losses)
    block = next_block(problem, slot, n_slots, -1)
    while block * problem.block_rows < problem.n_rows:
        # The first runs go to the slots in turn.
        fresh = problem.first_block + block == slot * problem.run_blocks
        if fresh:
            losses[slot] = 0
        following = prefetched = next_block(problem, slot, n_slots, block)
        if following * problem.block_rows >= problem.n_rows and next_slot < n_slots:
            prefetched = next_block(problem, next_slot, n_slots, -1)
        losses[slot] += accumulate_block(
            problem, terms, block, prefetched, slabs[slot], fresh, scratch
        )
        block = following


@helper
def _run_drawn_slots(job, arrays, counters):
    """Draw slots and run them; each worker has a row of scratch."""
    problem, terms = job
    slabs, losses, scratch = arrays
    own = scratch[draw_worker(counters)]
    slot = draw_task(counters)
    while slot < len(slabs):  # those that have rows are the first
        # The next slot is a guess, that every worker will have drawn one meanwhile. It is not drawn
        # ahead, as it would wait for this worker while another one is idle.
        run_slot(problem, terms, slot, slot + len(scratch), slabs, losses, own)
        slot = draw_task(counters)


@kernel
def run_slots(job, arrays, crew):
    """Run all slots; ``job`` is a problem and its terms."""
    share_out(pack_call(_run_drawn_slots, (job, arrays)), crew)
