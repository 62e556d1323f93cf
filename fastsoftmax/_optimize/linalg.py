"""Small linear algebra that wakes no thread of a BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.products import blocks

Array = npt.NDArray[Any]

# Products up to this many multiply-adds stay on the thread that calls BLAS. Threads it leaves
# spinning would hold the cores that the next evaluation needs.
SMALL_PRODUCT = 1 << 17


def dot(a: Array, b: Array) -> float:
    """Σ a·b on one thread: a BLAS that leaves its threads spinning slows the next kernel down."""
    return float(np.einsum("i,i->", a, b))


def small_product(G: Array, M: Array) -> Array:
    """G @ M.T, in pieces that BLAS does not share out among threads."""
    out = np.empty((len(G), M.shape[0]), G.dtype)
    for columns in blocks(len(out.T), max(SMALL_PRODUCT // max(G.size, 1), 1)):
        out[:, columns] = G @ M[columns].T
    return out
