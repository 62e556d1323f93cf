"""Kernels that draw their work from a shared counter, run on several threads.

Such a kernel takes a job and arrays, the last of which is ``shared``: how much was drawn, and how
many workers draw. (Those of `driver` have scratch for each worker besides.)
"""

from __future__ import annotations

from typing import Any

from numba import prange

from fastsoftmax._kernels.jit import call_native, kernel, native_address


@kernel(parallel=True)
def call_everywhere(address, job, arrays, n_workers):
    for _ in prange(n_workers):
        call_native(address, (job, arrays))


def on_threads(draw: Any, job: Any, arrays: tuple[Any, ...], n_workers: int) -> None:
    """Run a kernel on so many threads."""
    call_everywhere(native_address(draw, (job, arrays)), job, arrays, n_workers)
