"""The small linear algebra of solvers and preconditioners, by BLAS and LAPACK on one thread."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
import threadpoolctl

from fastsoftmax.reference import Array

_lock = threading.Lock()
_fits = 0
_limiter: Any = None


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    """Return the controller of NumPy's and SciPy's BLAS; finding the libraries takes 1 ms."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS on one thread for the span of a fit; the last fit to end restores its threads.

    A BLAS that shares a product out leaves its threads spinning for about 0.1 s on the cores that
    the next evaluation needs: every second pass of a fit then took three times as long.
    """
    global _fits, _limiter
    with _lock:
        if _fits == 0:
            _limiter = _blas().limit(limits=1)
        _fits += 1
    try:
        yield
    finally:
        with _lock:
            _fits -= 1
            if _fits == 0:
                _limiter.restore_original_limits()


def cholesky_solver(M: Array) -> Callable[[Array], Array]:
    """Return G ↦ G M⁻¹ for the rows of G; what M lacks of being definite is added to its diagonal.

    A blocked factorisation of our own, on all threads, gained less than a tenth of any fit.
    """
    if not len(M):
        return lambda G: G
    scale = 1 / np.sqrt(np.einsum("ii->i", M))
    M = M * scale[:, None] * scale
    diagonal = np.einsum("ii->i", M)
    jitter = 1e-13
    while True:
        diagonal += jitter
        try:
            factor = scipy.linalg.cho_factor(M, check_finite=False)
            break
        except np.linalg.LinAlgError:
            if jitter > 1:
                raise
            jitter *= 100

    # SciPy's cho_solve looks at its arguments for longer than it takes to solve for ten classes.
    potrs = scipy.linalg.get_lapack_funcs("potrs", factor[:1])

    def solve(G: Array) -> Array:
        solved, _ = potrs(factor[0], (G * scale).T, lower=factor[1], overwrite_b=True)
        return np.asarray(solved.T * scale)

    return solve
