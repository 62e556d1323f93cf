"""Run the row kernels on a canonical array (outer, n, inner), reduced over n."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._engine import address, aligned, parallel_region, threads
from fastsoftmax._kernels import driver
from fastsoftmax._kernels.columns import STRIP, Columns
from fastsoftmax._kernels.emit import VECTOR_BYTES
from fastsoftmax._kernels.logits import STAGED_ROWS, Rows, scratch_size
from fastsoftmax._kernels.loss import Terms
from fastsoftmax._kernels.modes import GRADIENT, LOG_SOFTMAX, LOGSUMEXP, LOSS, SOFTMAX

Array = npt.NDArray[Any]

__all__ = ["LOGSUMEXP", "LOG_SOFTMAX", "SOFTMAX", "direct_rows", "logits_loss", "reduce_or_map"]

# Fewer elements than this are done before another thread has woken up.
_SERIAL_ELEMENTS = 30_000
_DIRECT_SERIAL = 16_000
_CHUNK_BYTES, _CHUNK_ROWS = 256 << 10, 8
# Results from here on will not fit the caches: writing past them saves reading what they replace.
_STREAMED_BYTES = 4 << 20
# A row this long is cut into columns where there are too few rows to go round.
_LONG_ROW = 1 << 17
_LONG_ROW_COLUMNS = 4096
_MAX_CHUNKS = 64


def reduce_or_map(x: Array, out: Array, mode: int) -> None:
    """Fill ``out``, (outer, n, inner) like x or for LOGSUMEXP (outer, inner); both contiguous."""
    outer, n, inner = x.shape
    if inner > 1:
        _columns(x, out, mode)
    elif n >= _LONG_ROW and outer < 2 * threads():
        for i in range(outer):
            _long_row(x[i, :, 0], out[i : i + 1, 0] if mode == LOGSUMEXP else out[i, :, 0], mode)
    else:
        _rows(x, out, mode)


def _streams(x: Array, out: Array) -> bool:
    return out.nbytes >= _STREAMED_BYTES and address(out) != address(x)


def direct_rows(x: Array, out: Array, n: int, mode: int) -> None:
    """Rows so few that every line of Python counts: x and ``out`` flat and contiguous."""
    workers = 1 if x.size < _DIRECT_SERIAL else min(threads(), x.size // n)
    if workers < 2:
        driver.direct_serial(x, out, n, mode, 1)
        return
    with parallel_region(workers) as workers:
        run = driver.direct_parallel if workers > 1 else driver.direct_serial
        run(x, out, n, mode, workers)


def _workers(elements: int, tasks: int) -> int:
    return 1 if elements < _SERIAL_ELEMENTS else max(min(threads(), tasks), 1)


def _rows(x: Array, out: Array, mode: int) -> None:
    job = _job(x, out, mode, mode != LOGSUMEXP and _streams(x, out), 1.0)
    with parallel_region(_workers(x.size, -(-job.n_rows // job.chunk))) as workers:
        run = driver.rows_parallel if workers > 1 else driver.rows_serial
        run(job, _scratch(workers, job, x), np.zeros(1, np.int64))


def _job(x: Array, out: Array | None, mode: int, streamed: bool, denominator: float) -> Rows:
    n_rows, n = x.shape[:2]
    # Several rows, as three are in flight; the same for any number of threads, as losses are sums.
    rows = max(_CHUNK_BYTES // (n * x.itemsize), _CHUNK_ROWS)
    chunk = max(min(rows // STAGED_ROWS * STAGED_ROWS or rows, -(-n_rows // 4)), 1)
    return Rows(address(x), address(out), n_rows, n, mode, chunk, streamed, denominator)


def _scratch(workers: int, job: Rows, x: Array) -> Array:
    size = scratch_size(job.n, VECTOR_BYTES // x.itemsize, job.streamed)
    return aligned(workers, size, x.dtype)


def _run_columns(job: Columns, dtype: np.dtype[Any]) -> None:
    tasks = job.outer * job.n_chunks * -(-job.inner // STRIP)
    with parallel_region(_workers(job.outer * job.n * job.inner, tasks)) as workers:
        run = driver.columns_parallel if workers > 1 else driver.columns_serial
        scratch = aligned(workers, 64 * VECTOR_BYTES // dtype.itemsize, dtype)
        run(job, tasks, scratch, np.zeros(1, np.int64))


def _columns(x: Array, out: Array, mode: int) -> None:
    job, partial = _reduce_columns(x)
    top, total, log_total = _merge(partial, axis=1)
    if mode == LOGSUMEXP:
        with np.errstate(invalid="ignore"):
            out[...] = (top + log_total)[:, : x.shape[2]]
    else:
        _write_columns(job, x, out, mode, top, total, log_total)


def _reduce_columns(x: Array) -> tuple[Columns, Array]:
    """Maximum, count and rest of chunks of columns: (3, outer, n_chunks, padded) in float64."""
    outer, n, inner = x.shape
    lanes = VECTOR_BYTES // x.itemsize
    padded = -(-inner // lanes) * lanes
    pieces = outer * -(-inner // STRIP)
    n_chunks = max(min(_MAX_CHUNKS // pieces, n // 64), 1)
    chunk = -(-n // n_chunks)
    n_chunks = -(-n // chunk)
    partial = aligned(3, outer * n_chunks * padded, x.dtype).reshape(3, outer, n_chunks, padded)
    job = Columns(
        x=address(x),
        out=0,
        outer=outer,
        n=n,
        inner=inner,
        padded=padded,
        chunk=chunk,
        n_chunks=n_chunks,
        exponentiate=False,
        top=address(partial[0]),
        tally=address(partial[1]),
        rest=address(partial[2]),
        shift=0,
        factor=0,
    )
    _run_columns(job, x.dtype)
    return job, partial.astype(np.float64)


def _merge(partial: Array, axis: int) -> tuple[Array, Array, Array]:
    """Combine parts along an axis: the maximum, Σ exp(x - maximum), and its logarithm."""
    top, count, rest = partial
    with np.errstate(invalid="ignore", divide="ignore"):
        highest = top.max(axis=axis, keepdims=True)
        here = top == highest
        scale = np.where(here, 1.0, np.exp(top - highest))
        counts = np.where(here, count, 0.0).sum(axis=axis)
        rests = (rest * scale + np.where(here, 0.0, count * scale)).sum(axis=axis)
        log_total = np.where(counts > 0, np.log(counts) + np.log1p(rests / counts), np.log(rests))
    return highest.squeeze(axis), counts + rests, log_total


def _shift_and_factor(
    mode: int, top: Array, total: Array, log_total: Array, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """Return what softmax and log_softmax need of a column: exp(x - s)·f, or x - s - f."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if mode == SOFTMAX:
            # SciPy's pattern: a column with an infinite maximum is NaN throughout.
            shift, factor = top, np.where(np.isfinite(top), 1.0 / total, np.nan)
        else:
            shift, factor = np.where(top == -np.inf, 0.0, top), log_total
    return np.ascontiguousarray(shift, dtype), np.ascontiguousarray(factor, dtype)


def _write_columns(
    job: Columns, x: Array, out: Array, mode: int, top: Array, total: Array, log_total: Array
) -> None:
    shift, factor = _shift_and_factor(mode, top, total, log_total, x.dtype)
    job = job._replace(
        out=address(out),
        exponentiate=mode == SOFTMAX,
        shift=address(shift),
        factor=address(factor),
    )
    _run_columns(job, x.dtype)


def _long_row(x: Array, out: Array, mode: int) -> None:
    """One of too few rows to go round: its values as columns, which are then merged too."""
    whole = len(x) // _LONG_ROW_COLUMNS * _LONG_ROW_COLUMNS
    body, tail = x[:whole].reshape(1, -1, _LONG_ROW_COLUMNS), x[whole:].astype(np.float64)
    job, partial = _reduce_columns(body)
    partial = partial.reshape(3, -1)
    if tail.size:
        highest = tail.max()
        with np.errstate(invalid="ignore"):
            rest = np.exp(tail[tail != highest] - highest).sum()
        count = 0.0 if highest == -np.inf else float((tail == highest).sum())
        partial = np.column_stack([partial, [highest, count, rest]])
    sums = _merge(partial, axis=0)
    if mode == LOGSUMEXP:
        with np.errstate(invalid="ignore"):
            out[0] = sums[0] + sums[2]
        return
    columns = [np.full((1, job.padded), value) for value in sums]
    _write_columns(job, body, out[:whole], mode, *columns)
    shift, factor = _shift_and_factor(mode, *sums, x.dtype)
    with np.errstate(invalid="ignore"):
        shifted = x[whole:] - shift
        out[whole:] = np.exp(shifted) * factor if mode == SOFTMAX else shifted - factor


def logits_loss(x: Array, terms: Terms, denominator: float, out: Array | None) -> float:
    """Σ of the weighted row losses of contiguous logits (N, K); the gradient goes to ``out``."""
    mode = LOSS if out is None else GRADIENT
    job = _job(x, out, mode, out is not None and _streams(x, out), denominator)
    losses = np.empty(-(-job.n_rows // job.chunk))
    with parallel_region(_workers(x.size, len(losses))) as workers:
        run = driver.losses_parallel if workers > 1 else driver.losses_serial
        run(job, terms, losses, _scratch(workers, job, x), np.zeros(1, np.int64))
    return float(losses.sum())
