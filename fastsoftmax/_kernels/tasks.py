"""Kernels that draw tasks from a shared counter, run by one thread or by several.

Such a kernel is one line, ``share_out(pack_call(worker, arguments), crew)``. Every thread of the
crew calls ``worker(*arguments, counters)``, which draws one task after another until none is left.
So a core that is lost to another program delays one task and not a fixed part of the work, and a
thread that never comes delays nothing.
"""

from typing import NamedTuple

from numba import prange

from fastsoftmax._kernels.jit import helper, kernel
from fastsoftmax._kernels.team import work_with_team
from fastsoftmax._kernels.vector.atomics import fetch_add
from fastsoftmax._kernels.vector.calls import call_at, make_call
from fastsoftmax._kernels.vector.simd import advance


class Crew(NamedTuple):
    """Who works on a kernel's tasks."""

    n_workers: int  # the caller among them
    board: int  # address of the team's board, see `fastsoftmax._kernels.team`
    loop: int  # address of `call_in_parallel`, which is used where it is not 0


ALONE = Crew(1, 0, 0)


@helper
def draw_task(counters):
    """Number of the next task that nobody has drawn yet."""
    return fetch_add(counters, 1)


@helper
def draw_worker(counters):
    """Number of this worker, which is also its row of scratch."""
    return fetch_add(advance(counters, 1), 1)


@kernel(parallel=True)
def call_in_parallel(unpacker, data, n_workers):
    """Make a packed call on Numba's own threads: the plain way, beside that of the team."""
    for _ in prange(n_workers):
        make_call(unpacker, data)


@helper
def share_out(call, crew):
    """Let every thread of a crew that comes in time make a call that `pack_call` has packed."""
    unpacker, data = call
    if crew.n_workers < 2:
        make_call(unpacker, data)
    elif crew.loop != 0:
        call_at(crew.loop, (unpacker, data, crew.n_workers))
    else:
        work_with_team(crew.board, unpacker, data, crew.n_workers - 1)
