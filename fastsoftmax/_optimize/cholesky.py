"""Solving with a positive definite matrix, without waking the threads of a BLAS.

They go on spinning for 0.1 s; with two cores every second pass of a fit then took three times as
long, and LAPACK wakes them to invert 51 by 51.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.products import FULL, LOWER_A, LOWER_B, blocks, multiply_add

Array = npt.NDArray[Any]

# A diagonal block's factorisation stays on one thread in LAPACK as well.
_BLOCK = 64


def solver(M: Array) -> Callable[[Array], Array]:
    """G ↦ G M⁻¹ for the rows of G; what M lacks of being definite is added to its diagonal."""
    scale = 1 / np.sqrt(np.einsum("ii->i", M))
    M = M * scale[:, None] * scale
    jitter = 1e-13
    while (inverse := _inverse_factor(M, jitter)) is None:
        jitter *= 100

    def solve(G: Array) -> Array:
        # M⁻¹ = L⁻ᵀL⁻¹. Such a product is definite whatever its rounding, as M⁻¹ itself may not be.
        right = np.zeros((len(M), _padded(len(G))))
        np.multiply(G.T, scale[:, None], out=right[:, : len(G)])
        half = np.zeros_like(right)
        multiply_add(inverse, right, half, LOWER_A)
        out = np.zeros((len(G), inverse.shape[1]))
        multiply_add(half.T[: len(G)], inverse, out, LOWER_B)
        return np.asarray(out[:, : len(M)] * scale)

    return solve


def _inverse_factor(M: Array, jitter: float) -> Array | None:
    """L⁻¹, zeros behind its rows, for L Lᵀ = M + jitter; None where that is not definite.

    The elimination that makes U = Lᵀ of M makes L⁻¹ of the identity beside it.
    """
    n, width = len(M), _padded(len(M))
    both = np.zeros((n, 2 * width + 8))  # an odd number of cache lines: see `_gram`
    U, inverse = both[:, :width], both[:, width : 2 * width]
    U[:, :n] = M
    np.einsum("ii->i", U[:, :n])[:] += jitter
    np.einsum("ii->i", inverse[:, :n])[:] = 1
    for rows in blocks(n, _BLOCK):
        start, factors = rows.start, -U[: rows.start, rows].T
        parts = (U[:, start:], FULL), (inverse[:, : _padded(rows.stop)], LOWER_B)
        if start:
            for part, lower in parts:
                multiply_add(factors, part[:start], part[rows], lower)
        try:
            known = np.linalg.inv(np.linalg.cholesky(U[rows, rows]))
        except np.linalg.LinAlgError:
            return None
        for part, _ in parts:
            right = part[rows].copy()
            part[rows] = 0
            multiply_add(known, right, part[rows])
    return inverse.copy()


def _padded(n: int) -> int:
    """Columns that fill up whole vectors."""
    return -(-n // 8) * 8
