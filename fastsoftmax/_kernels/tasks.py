"""Kernels that draw tasks from a shared counter, run on one thread or on several.

Such a kernel takes a job, which is a number or a tuple, and a tuple of arrays. The last array,
``shared``, is made by `shared_counters`. A worker draws one task after another until none is left,
so that a core that is lost to another program delays one task and not a fixed part of the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from fastsoftmax._kernels.jit import helper, kernel, make_call, native_address, pack_call
from fastsoftmax._kernels.vector.simd import advance, fetch_add, pointer


def shared_counters(n_workers: int) -> Any:
    """Return [the next task, the number of workers, the next worker]."""
    return np.array([0, n_workers, 0])


@helper
def draw_task(shared):
    """Number of the next task that nobody has drawn yet."""
    return fetch_add(pointer(shared), 1)


@helper
def draw_worker(shared):
    """Number of this worker, which is also its row of scratch."""
    return fetch_add(advance(pointer(shared), 2), 1)


@kernel(parallel=True)
def call_on_threads(unpacker, data, n_workers):
    """Make a packed call ``n_workers`` times: the only parallel loop of kernels that draw tasks."""
    for _ in prange(n_workers):
        make_call(unpacker, data)


@kernel
def pack_and_call(address, arguments, n_workers):
    """Call the kernel at a `native_address` on ``n_workers`` threads."""
    unpacker, data = pack_call(address, arguments)
    call_on_threads(unpacker, data, n_workers)


def run_on_threads(kernel: Any, job: Any, arrays: tuple[Any, ...], n_workers: int) -> None:
    """Run a kernel that draws tasks on ``n_workers`` of Numba's threads."""
    pack_and_call(native_address(kernel, (job, arrays)), (job, arrays), n_workers)
