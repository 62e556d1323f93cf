"""Run the row kernels on a canonical array (outer, n, inner), reduced over n."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.memory import address, aligned
from fastsoftmax._evaluation.threads import draw, n_threads, parallel_region
from fastsoftmax._kernels.modes import GRADIENT, LOG_SOFTMAX, LOGSUMEXP, LOSS, SOFTMAX
from fastsoftmax._kernels.rows.chunks import (
    FEW_BYTES,
    STAGED_ROWS,
    Rows,
    direct_parallel,
    direct_serial,
    draw_losses,
    draw_rows,
    scratch_size,
)
from fastsoftmax._kernels.rows.columns import columns_parallel, columns_serial
from fastsoftmax._kernels.softmax.losses import Terms
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES

Array = npt.NDArray[Any]

__all__ = [
    "LOGSUMEXP",
    "LOG_SOFTMAX",
    "SOFTMAX",
    "columns",
    "direct_rows",
    "logits_loss",
    "reduce_or_map",
]

# Fewer elements than this are done before another thread has woken up.
_SERIAL_ELEMENTS = 30_000
_DIRECT_SERIAL = 16_000
# Large enough that beginning one, and waiting for what it has streamed, does not count: softmax at
# (100k, 1000) took 8 % longer at 256 KiB. Small enough that there are some for every thread.
_CHUNK_BYTES, _CHUNKS, _CHUNK_ROWS = (256 << 10, 1 << 20), 32, 8
# Results from here on will not fit the caches: writing past them saves reading what they replace.
_STREAMED_BYTES = 4 << 20
# A row this long is cut into columns where there may be too few rows to go round.
_LONG_ROW, _FEW_ROWS = 1 << 17, 8
# What tells kernels the dtype: Numba compiles anew for read-only arrays.
_LIKE = {code: np.empty(1, code) for code in "fd"}


def reduce_or_map(x: Array, out: Array, mode: int) -> None:
    """Fill ``out``, (outer, n, inner) like x or for LOGSUMEXP (outer, inner); both contiguous."""
    outer, n, inner = x.shape
    if inner > 1 or (n >= _LONG_ROW and outer < _FEW_ROWS):
        columns(x, out, x.shape, mode)
    else:
        _rows(x, out, mode)


def _streams(x: Array, out: Array) -> bool:
    return out.nbytes >= _STREAMED_BYTES and address(out) != address(x) and out.flags.aligned


def direct_rows(x: Array, out: Array, n: int, mode: int) -> None:
    """Rows so few that every line of Python counts: x and ``out`` flat and contiguous."""
    workers = 1 if x.size < _DIRECT_SERIAL else min(n_threads(), x.size // n)
    few = True if n * x.itemsize <= FEW_BYTES else None
    if workers < 2:
        direct_serial(x, out, n, mode, few)
        return
    with parallel_region(workers) as workers:
        if workers > 1:
            direct_parallel(x, out, n, mode, few, workers)
        else:
            direct_serial(x, out, n, mode, few)


def _workers(elements: int, tasks: int) -> int:
    return 1 if elements < _SERIAL_ELEMENTS else max(min(n_threads(), tasks), 1)


def _rows(x: Array, out: Array, mode: int) -> None:
    job = _job(x, out, mode, mode != LOGSUMEXP and _streams(x, out), 1.0)
    few = True if job.n * x.itemsize <= FEW_BYTES else None
    workers = _workers(x.size, -(-job.n_rows // job.chunk))
    draw(draw_rows, (job, few), _scratch(workers, job, x), n_workers=workers)


def _job(x: Array, out: Array | None, mode: int, streamed: bool, denominator: float) -> Rows:
    n_rows, n = x.shape[:2]
    # Several rows, as three are in flight; the same for any number of threads, as losses are sums.
    size = min(max(x.nbytes // _CHUNKS, _CHUNK_BYTES[0]), _CHUNK_BYTES[1])
    rows = max(size // (n * x.itemsize), _CHUNK_ROWS)
    chunk = max(min(rows // STAGED_ROWS * STAGED_ROWS or rows, -(-n_rows // 4)), 1)
    return Rows(address(x), address(out), n_rows, n, mode, chunk, streamed, denominator)


def _scratch(workers: int, job: Rows, x: Array) -> Array:
    size = scratch_size(job.n, VECTOR_BYTES // x.itemsize, job.streamed)
    return aligned(workers, size, x.dtype)


def columns(x: Array, out: Array, shape: tuple[int, int, int], mode: int) -> None:
    """Reduce the middle axis of contiguous arrays; few of them, and Python counts here, too."""
    workers = 1 if x.size < _DIRECT_SERIAL else n_threads()
    streamed = mode != LOGSUMEXP and _streams(x, out)
    call = (address(x), address(out), *shape, mode, streamed)
    if workers < 2:
        columns_serial(call, _LIKE[x.dtype.char], 1)
        return
    with parallel_region(workers) as workers:
        run = columns_parallel if workers > 1 else columns_serial
        run(call, _LIKE[x.dtype.char], workers)


def logits_loss(x: Array, terms: Terms, denominator: float, out: Array | None) -> float:
    """Σ of the weighted row losses of contiguous logits (N, K); the gradient goes to ``out``."""
    mode = LOSS if out is None else GRADIENT
    job = _job(x, out, mode, out is not None and _streams(x, out), denominator)
    losses = np.empty(-(-job.n_rows // job.chunk))
    few = True if job.n * x.itemsize <= FEW_BYTES else None
    workers = _workers(x.size, len(losses))
    draw(draw_losses, (job, terms, few), losses, _scratch(workers, job, x), n_workers=workers)
    return float(losses.sum())
