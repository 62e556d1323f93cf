"""Solving with a positive definite matrix, without waking the threads of a BLAS.

They go on spinning for 0.1 s; with two cores every second pass of a fit then took three times as
long, and LAPACK wakes them to invert 51 by 51.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax.solvers import blocks, small_product

Array = npt.NDArray[Any]

# A diagonal block's factorisation stays on one thread in LAPACK as well.
_BLOCK = 64


def solver(M: Array) -> Callable[[Array], Array]:
    """G ↦ G M⁻¹ for the rows of G; what M lacks of being definite is added to its diagonal."""
    scale = 1 / np.sqrt(np.einsum("ii->i", M))
    M = M * scale[:, None] * scale
    jitter = 1e-13
    while (inverses := _factorise(L := M + jitter * np.eye(len(M)))) is None:
        jitter *= 100
    cuts = list(zip(blocks(len(L), _BLOCK), inverses, strict=True))

    def solve(G: Array) -> Array:
        G = G * scale
        for rows, inverse in cuts:
            known = slice(0, rows.start)
            G[:, rows] = (G[:, rows] - small_product(G[:, known], L[rows, known])) @ inverse.T
        for rows, inverse in reversed(cuts):
            known = slice(rows.stop, len(L))
            G[:, rows] = (G[:, rows] - small_product(G[:, known], L[known, rows].T)) @ inverse
        G *= scale
        return G

    return solve


def _factorise(M: Array) -> list[Array] | None:
    """Put the lower Cholesky factor in M's place; return its diagonal blocks' inverses.

    None where M is not definite.
    """
    inverses = []
    for columns in blocks(len(M), _BLOCK):
        try:
            M[columns, columns] = np.linalg.cholesky(M[columns, columns])
        except np.linalg.LinAlgError:
            return None
        inverses.append(np.linalg.inv(M[columns, columns]))
        stop = columns.stop
        M[stop:, columns] = small_product(inverses[-1], M[stop:, columns]).T
        for part in blocks(len(M) - stop, _BLOCK):
            rows, left = slice(stop + part.start, stop + part.stop), slice(stop, stop + part.stop)
            M[rows, left] -= small_product(M[rows, columns], M[left, columns])
    return inverses
