"""Sums over rows in plain NumPy, for NUMBA_DISABLE_JIT=1."""

from typing import Any

import numpy as np

from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.targets import Targets, penalty
from fastsoftmax._kernels.modes import PRODUCT
from fastsoftmax.reference import Array, linear_logits, row_losses_and_gradients, softmax

_HESSIAN_ROWS = 256  # whose products p ⊗ x are formed at a time


class ReferenceAccumulator:
    """`fastsoftmax._evaluation.accumulators.Accumulator` in NumPy."""

    block_rows = 1

    def __init__(
        self, W: Array, bias: Array | None, center: Array | None, mode: int, direction: Any = None
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
        """Add a chunk of rows; fill ``row_losses`` (N,) and ``input_grad`` (N, D) if given."""
        if len(X) == 0:
            return
        rows = (X.matrix() if isinstance(X, CSR) else X).astype(self.W.dtype)
        if self.center is not None:
            rows = rows - self.center
        s = targets.scales(len(X))
        Z = linear_logits(rows, self.W, self.bias)
        if self.mode >= PRODUCT:
            self._add_curvature(rows, softmax(Z, axis=1), s)
            return
        t = targets.rows(len(self.W))
        losses, R = row_losses_and_gradients(Z, s, t, targets.alpha)
        with np.errstate(invalid="ignore", over="ignore"):
            self.gradient += R.T @ rows
            self.bias_gradient += R.sum(axis=0)
            self.sum_of_losses += float(losses.sum())
            if row_losses is not None:
                row_losses[...] = losses
            if input_grad is not None:
                input_grad[...] = R @ self.W / R.dtype.type(targets.total)

    def _add_curvature(self, X: Any, P: Array, s: Array) -> None:
        """Add what the modes PRODUCT and DIAGONAL name, for rows of probabilities P."""
        if self.mode == PRODUCT:
            U = linear_logits(X, *self.direction)
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


class ReferenceHessian:
    """`fastsoftmax._evaluation.hessian.HessianAccumulator` in NumPy."""

    block_rows = 1

    def __init__(self, W: Array, bias: Array | None) -> None:
        self.W, self.bias = W, bias
        size = W.size + (0 if bias is None else len(bias))
        self.sums = np.zeros((size, size))

    def add(self, X: Array | CSR, targets: Targets) -> None:
        """Add a chunk of rows, the weights of whose targets are s·T."""
        rows: Any = X.matrix() if isinstance(X, CSR) else X
        scales = targets.scales(len(X))
        for start in range(0, len(X), _HESSIAN_ROWS):
            part = slice(start, start + _HESSIAN_ROWS)
            x = rows[part].astype(self.W.dtype)
            self._add_block(x.toarray() if isinstance(X, CSR) else x, scales[part])

    def _add_block(self, x: Array, s: Array) -> None:
        """Add Σ s (diag p - p pᵀ) ⊗ x̃x̃ᵀ in the flat order: W by rows, then b."""
        (n_classes, n_features), has_bias = self.W.shape, self.bias is not None
        p = softmax(linear_logits(x, self.W, self.bias), axis=1)
        p[s == 0] = 0
        outer = (p[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        outer = np.column_stack([outer, p]) if has_bias else outer
        self.sums -= (s[:, None] * outer).T @ outer
        rows = np.column_stack([x, np.ones_like(s)]) if has_bias else x
        for k in range(n_classes):
            places = np.arange(k * n_features, (k + 1) * n_features)
            places = np.append(places, self.W.size + k) if has_bias else places
            self.sums[np.ix_(places, places)] += ((s * p[:, k])[:, None] * rows).T @ rows

    def hessian(self, total: float) -> Array:
        """Return the Hessian over ``total`` (size, size), without the penalty."""
        return self.sums / total
