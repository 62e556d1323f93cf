"""Scores of rows by a linear model: one pass over X, and nothing large but the result."""

from collections.abc import Callable

import numpy as np

from fastsoftmax import reference
from fastsoftmax._evaluation.backend import accumulator, jit_disabled
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.targets import no_targets
from fastsoftmax._kernels.modes import ARGMAX, LOG_SOFTMAX, LOGITS, SOFTMAX
from fastsoftmax.reference import Array

__all__ = ["ARGMAX", "LOGITS", "LOG_SOFTMAX", "SOFTMAX", "score"]

_BY_NUMPY: dict[int, Callable[[Array], Array]] = {
    LOGITS: lambda Z: Z,
    SOFTMAX: lambda Z: reference.softmax(Z, axis=1),
    LOG_SOFTMAX: lambda Z: reference.log_softmax(Z, axis=1),
    ARGMAX: lambda Z: Z.argmax(axis=1),
}


def score(
    X: Array | CSR, W: Array, bias: Array | None, mode: int, out: Array | None = None
) -> Array:
    """Return what ``mode`` makes of the logits of every row, computed in W's dtype.

    The result is (N, K), or int64 (N,) for ARGMAX; ``out`` is contiguous.
    """
    if mode == ARGMAX and len(W) > 1 << np.finfo(W.dtype).nmant:
        raise ValueError(f"W: expected classes that {W.dtype} can number, got {len(W)}")
    n_rows = len(X)
    if out is None:
        shape = (n_rows,) if mode == ARGMAX else (n_rows, len(W))
        out = np.empty(shape, np.int64 if mode == ARGMAX else W.dtype)
    if n_rows == 0:
        return out
    if jit_disabled():
        rows = X.matrix() if isinstance(X, CSR) else X
        out[...] = _BY_NUMPY[mode](reference.linear_logits(rows, W, bias))
        return out
    rows = accumulator(W, bias, mode=mode, sparse=isinstance(X, CSR))
    rows.add(X, no_targets(W.dtype), None, out)
    return out
