"""Where kernels run: threads and when not to use them, memory, addresses."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from fastsoftmax._kernels import drawing
from fastsoftmax._kernels.loss import Terms
from fastsoftmax._options import Targets

Array = npt.NDArray[Any]

_one_region = threading.Lock()
_forked_after_threads = False


def _after_fork() -> None:
    # GNU OpenMP does not survive a fork, and Numba kills the child that tries.
    global _forked_after_threads, _one_region
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    _forked_after_threads |= bool(getattr(parallel, "_is_initialized", False))
    _one_region = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def parallel_region(n_workers: int) -> contextlib.AbstractContextManager[int]:
    """How many of ``n_workers`` may run now: all, or 1, which the serial twin must be."""
    if n_workers < 2 or _forked_after_threads:
        return contextlib.nullcontext(1)
    return contextlib.nullcontext(n_workers) if _is_reentrant() else _alone(n_workers)


def _is_reentrant() -> bool:
    """Whether several threads may be inside parallel regions."""
    try:
        return bool(numba.threading_layer() != "workqueue")
    except ValueError:  # no parallel kernel has run yet
        return False


@contextlib.contextmanager
def _alone(n_workers: int) -> Iterator[int]:
    # Numba aborts the process when two threads enter a workqueue region.
    acquired = _one_region.acquire(blocking=False)
    try:
        yield n_workers if acquired else 1
    finally:
        if acquired:
            _one_region.release()


def draw(kernel: Any, job: Any, *arrays: Array, n_workers: int) -> None:
    """Run a kernel that draws its work (`drawing`) on up to ``n_workers`` threads."""
    with parallel_region(n_workers) as workers:
        arrays = (*arrays, np.array([0, workers]))
        if workers > 1:
            drawing.on_threads(kernel, job, arrays, workers)
        else:
            kernel(job, arrays)


def threads() -> int:
    """Numba's thread count for the calling thread."""
    return int(numba.get_num_threads())


def make_terms(targets: Targets, start: int = 0, row_losses: Array | None = None) -> Terms:
    """Return addresses of rows ``start`` and on, for the kernels; the arrays must outlive them."""
    return Terms(
        labels=address(targets.labels, start),
        weight=address(targets.weight, start),
        targets=address(targets.probabilities, start),
        soft=targets.soft,
        peak=address(targets.peak),
        floor=address(targets.floor),
        alpha=targets.alpha,
        row_losses=address(row_losses, start),
    )


def address(array: Array | None, row: int = 0) -> int:
    """Address of a row of an array; 0 for None."""
    if array is None:
        return 0
    return int(array.__array_interface__["data"][0]) + row * array.strides[0]


def aligned(rows: int, row_length: int, dtype: np.dtype[Any]) -> Array:
    """Allocate a (rows, row_length) array that starts on a cache line, as every row of it does."""
    size = rows * row_length * dtype.itemsize
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.__array_interface__["data"][0] % 64
    return buffer[start : start + size].view(dtype).reshape(rows, row_length)
