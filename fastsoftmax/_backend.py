"""Which arithmetic runs: the kernels, or the NumPy reference under NUMBA_DISABLE_JIT=1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import reference
from fastsoftmax._csr import CSR
from fastsoftmax._kernels.modes import DIAGONAL, FULL, GRADIENT, LOSS, LOWER_A, LOWER_B, PRODUCT
from fastsoftmax._options import Targets, penalty

Array = npt.NDArray[Any]

__all__ = [
    "DIAGONAL",
    "FULL",
    "GRADIENT",
    "LOSS",
    "LOWER_A",
    "LOWER_B",
    "PRODUCT",
    "accumulator",
    "add_and_dot",
    "block_rows",
    "gram",
    "jit_disabled",
    "multiply_add",
]

# Vectors from which on a kernel pays: shorter ones stay in the cache.
_LONG = 1 << 16


def jit_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT asks for the NumPy reference."""
    from numba.core import config

    return bool(config.DISABLE_JIT)


def accumulator(
    W: Array,
    bias: Array | None,
    center: Array | None = None,
    *,
    sparse: bool = False,
    mode: int = GRADIENT,
    direction: tuple[Array, Array | None] | None = None,
) -> Any:
    """Start sums over rows still to come: of losses and of what ``mode`` names.

    ``center`` is subtracted from dense rows; ``direction`` belongs to the mode PRODUCT.
    """
    if jit_disabled():
        return ReferenceAccumulator(W, bias, center, mode, direction)
    from fastsoftmax._accumulator import DenseAccumulator, SparseAccumulator

    if sparse:
        return SparseAccumulator(W, bias, mode=mode, direction=direction)
    return DenseAccumulator(W, bias, center, mode=mode, direction=direction)


def gram(n_rows: int, n: int, dtype: npt.DTypeLike, fill: Callable[[slice, Array], Any]) -> Array:
    """Σ x xᵀ over rows x of length ``n``, which ``fill(rows, out)`` writes to ``out``.

    Products are summed in ``dtype``; the result is float64.
    """
    if jit_disabled():
        x = np.empty((n_rows, n), dtype)
        fill(slice(0, n_rows), x)
        return np.asarray(x.T @ x, np.float64)
    from fastsoftmax import _gram

    return _gram.gram(n_rows, n, dtype, fill)


def multiply_add(a: Array, b: Array, out: Array, lower: int = FULL) -> None:
    """Add a·b to ``out``, all float64; ``lower`` says which of a and b is lower triangular.

    Rows of b and ``out`` are contiguous and of a multiple of 8 columns.
    """
    if jit_disabled():
        out += a @ b
        return
    from fastsoftmax import _gram

    _gram.multiply_add(a, b, out, lower)


def add_and_dot(a: Array, factor: float, b: Array, c: Array) -> float:
    """Add factor·b to a, in place, and return Σ a·c, of float64 vectors."""
    if len(a) < _LONG or jit_disabled():
        a += factor * b
        # On one thread: a BLAS that leaves its threads spinning slows the next kernel down.
        return float(np.einsum("i,i->", a, c))
    from fastsoftmax import _vectors

    return _vectors.add_and_dot(a, factor, b, c)


def block_rows(sums: Any) -> int:
    """Rows of which every piece but the last must be a multiple, for the same bits."""
    plan = getattr(sums, "plan", None)
    return 1 if plan is None else int(plan.block_rows)


class ReferenceAccumulator:
    """`fastsoftmax._accumulator.Accumulator` in NumPy."""

    def __init__(
        self, W: Array, bias: Array | None, center: Array | None, mode: int, direction: Any
    ) -> None:
        self.W, self.mode, self.direction = W, mode, direction
        self.bias = np.zeros(len(W), W.dtype) if bias is None else bias
        self.center = None if center is None else center.astype(W.dtype)
        self.sum_of_losses = 0.0
        self.gradient = np.zeros_like(W)
        self.bias_gradient = np.zeros_like(self.bias)

    def add(
        self,
        X: Array | CSR,
        targets: Targets,
        row_losses: Array | None = None,
        input_grad: Array | None = None,
    ) -> None:
        """Add the rows of X; fill ``row_losses`` (N,) and ``input_grad`` (N, D) if given."""
        if len(X) == 0:
            return
        rows = (X.matrix() if isinstance(X, CSR) else X).astype(self.W.dtype)
        if self.center is not None:
            rows = rows - self.center
        s = targets.scales(len(X))
        Z = reference.linear_logits(rows, self.W, self.bias)
        if self.mode >= PRODUCT:
            self._add_curvature(rows, reference.softmax(Z, axis=1), s)
            return
        t = targets.rows(len(self.W))
        losses, R = reference.row_losses_and_gradients(Z, s, t, targets.alpha)
        with np.errstate(invalid="ignore", over="ignore"):
            self.gradient += R.T @ rows
            self.bias_gradient += R.sum(axis=0)
            self.sum_of_losses += float(losses.sum())
            if row_losses is not None:
                row_losses[...] = losses
            if input_grad is not None:
                input_grad[...] = R @ self.W / R.dtype.type(targets.total)

    def _add_curvature(self, X: Any, P: Array, s: Array) -> None:
        if self.mode == PRODUCT:
            U = reference.linear_logits(X, *self.direction)
            R = s[:, None] * P * (U - (P * U).sum(axis=1, keepdims=True))
        else:
            R, X = s[:, None] * P * (1 - P), X * X if isinstance(X, np.ndarray) else X.multiply(X)
        self.gradient += R.T @ X
        self.bias_gradient += R.sum(axis=0)

    def loss(self, total: float, l2: float) -> float:
        """Σ losses / total + l2·‖W‖²."""
        return self.sum_of_losses / total + penalty(self.W, l2)

    def finish(self, total: float, l2: float) -> tuple[float, Array, Array]:
        """Return the loss, its gradient in W (K, D) and in b (K,)."""
        scalar = self.W.dtype.type
        weight = self.gradient / scalar(total) + scalar(2 * l2) * self.W
        return self.loss(total, l2), weight, self.bias_gradient / scalar(total)
