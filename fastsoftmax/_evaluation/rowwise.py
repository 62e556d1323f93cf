"""Run the row kernels on a canonical array (outer, n, inner), reduced over n."""

import numpy as np

from fastsoftmax._evaluation.memory import address, aligned
from fastsoftmax._evaluation.threads import n_threads, run
from fastsoftmax._kernels.modes import GRADIENT, LOGSUMEXP, LOSS
from fastsoftmax._kernels.rows.columns import run_columns
from fastsoftmax._kernels.rows.last_axis import (
    BUFFERED_ROWS,
    FEW_BYTES,
    RowsJob,
    run_chunks,
    run_flat_rows,
    scratch_size,
)
from fastsoftmax._kernels.softmax.losses import Terms
from fastsoftmax._kernels.tasks import ALONE
from fastsoftmax._kernels.vector.emit import VECTOR_BYTES
from fastsoftmax.reference import Array

# Arrays of fewer elements are for one thread; the second number is for the kernels that are called
# directly, with less ado. Arrays of fewer than _SHORT are done before another thread has woken up.
_SERIAL_ELEMENTS, _DIRECT_SERIAL, _SHORT = 30_000, 16_000, 300_000
# Bytes of a chunk, at least and at most. It is so large that beginning it, and waiting for what it
# has streamed, does not count: softmax at (100k, 1000) took 8 % longer at 256 KiB. Between the two
# there are _CHUNKS of them, enough for every thread. A chunk has at least _CHUNK_ROWS rows, as
# three are in flight, but never more than a quarter of all.
_CHUNK_BYTES, _CHUNKS, _CHUNK_ROWS = (256 << 10, 1 << 20), 32, 8
_DIRECT_CHUNKS = 16  # of the rows that `direct_rows` takes
# Results from here on will not fit the caches: writing past them saves reading what they replace.
_STREAMED_BYTES = 4 << 20
# A row this long is cut into columns where there may be fewer rows than threads.
_LONG_ROW, _FEW_ROWS = 1 << 17, 8
# Arrays that tell kernels the dtype: for a read-only x itself Numba would compile anew.
_LIKE = {code: np.empty(1, code) for code in "fd"}


def reduce_or_map(x: Array, out: Array, mode: int) -> None:
    """Fill ``out``, (outer, n, inner) like x or for LOGSUMEXP (outer, inner); both contiguous."""
    outer, n, inner = x.shape
    if inner > 1 or (n >= _LONG_ROW and outer < _FEW_ROWS):
        columns(x, out, x.shape, mode)
    else:
        _draw_chunks(x, None, 1.0, mode, out)


def logits_loss(x: Array, terms: Terms, denominator: float, out: Array | None) -> float:
    """Σ of the weighted row losses of contiguous logits (N, K); the gradient goes to ``out``."""
    losses = _draw_chunks(x, terms, denominator, LOSS if out is None else GRADIENT, out)
    return float(losses.sum())


def _draw_chunks(
    x: Array, terms: Terms | None, denominator: float, mode: int, out: Array | None
) -> Array:
    """Run all rows of x; return the weighted loss of each chunk, 0 without ``terms``.

    Chunks are the same for any number of threads, as their losses are added up.
    """
    n_rows, n = x.shape[:2]
    size = min(max(x.nbytes // _CHUNKS, _CHUNK_BYTES[0]), _CHUNK_BYTES[1])
    rows = max(size // (n * x.itemsize), _CHUNK_ROWS)
    chunk = max(min(rows // BUFFERED_ROWS * BUFFERED_ROWS or rows, -(-n_rows // 4)), 1)
    streamed = out is not None and mode != LOGSUMEXP and _streams(x, out)
    job = RowsJob(address(x), address(out), n_rows, n, mode, chunk, streamed, denominator)
    losses = np.empty(-(-n_rows // chunk))
    workers = 1 if x.size < _SERIAL_ELEMENTS else max(min(n_threads(), len(losses)), 1)
    scratch = aligned(workers, scratch_size(n, VECTOR_BYTES // x.itemsize, streamed), x.dtype)
    few = True if n * x.itemsize <= FEW_BYTES else None
    run(run_chunks, (job, terms, few), (losses, scratch), n_workers=workers, short=x.size < _SHORT)
    return losses


def _streams(x: Array, out: Array) -> bool:
    """Whether results that are as large as x are written past the caches."""
    return out.nbytes >= _STREAMED_BYTES and address(out) != address(x) and out.flags.aligned


def direct_rows(x: Array, out: Array, n: int, mode: int) -> None:
    """Rows so few that every line of Python counts: x and ``out`` flat and contiguous."""
    n_rows = x.size // n
    few = True if n * x.itemsize <= FEW_BYTES else None
    if x.size < _DIRECT_SERIAL:
        run_flat_rows(x, out, n, mode, few, n_rows, ALONE)
    else:
        chunks = min(n_rows, _DIRECT_CHUNKS)
        arguments = (x, out, n, mode, few, -(-n_rows // chunks))
        run(run_flat_rows, *arguments, n_workers=chunks, short=x.size < _SHORT)


def columns(x: Array, out: Array, shape: tuple[int, int, int], mode: int) -> None:
    """Reduce the middle axis of contiguous arrays; few of them, and Python counts here, too."""
    workers = 1 if x.size < _DIRECT_SERIAL else n_threads()
    streamed = mode != LOGSUMEXP and _streams(x, out)
    call = (address(x), address(out), *shape, mode, streamed)
    run(run_columns, call, _LIKE[x.dtype.char], n_workers=workers, short=x.size < _SHORT)
