"""On how many threads a kernel runs, and when it must be one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numba
import numpy.typing as npt

from fastsoftmax._kernels.tasks import run_on_threads, shared_counters

_one_region = threading.Lock()
_forked_after_threads = False


def _after_fork() -> None:
    """Remember, in a forked child, whether its parent had started Numba's threads."""
    # GNU OpenMP does not survive a fork, and Numba kills the child that tries.
    global _forked_after_threads, _one_region
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    _forked_after_threads |= bool(getattr(parallel, "_is_initialized", False))
    _one_region = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def n_threads() -> int:
    """Numba's thread count for the calling thread."""
    return int(numba.get_num_threads())


def parallel_region(n_workers: int) -> contextlib.AbstractContextManager[int]:
    """Enter with ``n_workers`` if they may run now, and otherwise with 1.

    With 1 the caller must run the serial form of its kernel: in a forked child of a process that
    has started Numba's threads, and beside another thread's region of the layer "workqueue", a
    parallel one ends the process.
    """
    if n_workers < 2 or _forked_after_threads:
        return contextlib.nullcontext(1)
    return contextlib.nullcontext(n_workers) if _is_reentrant() else _alone(n_workers)


def _is_reentrant() -> bool:
    """Whether several threads may be inside parallel regions at a time."""
    try:
        return bool(numba.threading_layer() != "workqueue")
    except ValueError:  # no parallel kernel has run yet
        return False


@contextlib.contextmanager
def _alone(n_workers: int) -> Iterator[int]:
    """Give ``n_workers`` to one thread at a time, and 1 to the others."""
    acquired = _one_region.acquire(blocking=False)
    try:
        yield n_workers if acquired else 1
    finally:
        if acquired:
            _one_region.release()


def draw(kernel: Any, job: Any, *arrays: npt.NDArray[Any], n_workers: int) -> None:
    """Run a kernel that draws its tasks (see `fastsoftmax._kernels.tasks`) on some threads."""
    with parallel_region(n_workers) as workers:
        arrays = (*arrays, shared_counters(workers))
        if workers > 1:
            run_on_threads(kernel, job, arrays, workers)
        else:
            kernel(job, arrays)
