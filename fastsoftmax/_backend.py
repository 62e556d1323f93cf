"""Which arithmetic runs: the kernels, or the NumPy reference under NUMBA_DISABLE_JIT=1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import reference
from fastsoftmax._options import Targets

if TYPE_CHECKING:
    from fastsoftmax._engine import Accumulator

Array = npt.NDArray[Any]


def jit_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT asks for the NumPy reference."""
    from numba.core import config

    return bool(config.DISABLE_JIT)


def accumulator(
    W: Array, bias: Array | None, center: Array | None = None, *, gradient: bool = True
) -> Accumulator | ReferenceAccumulator:
    """Start sums of loss and, with ``gradient``, gradients over rows still to come."""
    if jit_disabled():
        return ReferenceAccumulator(W, bias, center)
    from fastsoftmax._engine import Accumulator

    return Accumulator(W, bias, center, gradient=gradient)


class ReferenceAccumulator:
    """`fastsoftmax._engine.Accumulator` in NumPy."""

    def __init__(self, W: Array, bias: Array | None, center: Array | None) -> None:
        self.W = W
        self.bias = np.zeros(len(W), W.dtype) if bias is None else bias
        self.center = np.zeros(W.shape[1], W.dtype) if center is None else center.astype(W.dtype)
        self.sum_of_losses = 0.0
        self.gradient = np.zeros_like(W)
        self.bias_gradient = np.zeros_like(self.bias)

    def add(
        self,
        X: Array,
        targets: Targets,
        row_losses: Array | None = None,
        input_grad: Array | None = None,
    ) -> None:
        """Add the rows of X; fill ``row_losses`` (N,) and ``input_grad`` (N, D) if given."""
        X = X.astype(self.W.dtype) - self.center
        if len(X) == 0:
            return
        s, t = targets.scales(len(X)), targets.rows(len(self.W))
        Z = reference.linear_logits(X, self.W, self.bias)
        losses, R = reference.row_losses_and_gradients(Z, s, t, targets.alpha)
        with np.errstate(invalid="ignore", over="ignore"):
            self.gradient += R.T @ X
            self.bias_gradient += R.sum(axis=0)
            self.sum_of_losses += float(losses.sum())
            if row_losses is not None:
                row_losses[...] = losses
            if input_grad is not None:
                input_grad[...] = R @ self.W / R.dtype.type(targets.total)

    def loss(self, total: float, l2: float) -> float:
        """Σ losses / total + l2·‖W‖²."""
        penalty = l2 * float(np.square(self.W, dtype=np.float64).sum()) if l2 else 0.0
        return self.sum_of_losses / total + penalty

    def finish(self, total: float, l2: float) -> tuple[float, Array, Array]:
        """Return the loss, its gradient in W (K, D) and in b (K,)."""
        scalar = self.W.dtype.type
        weight = self.gradient / scalar(total) + scalar(2 * l2) * self.W
        return self.loss(total, l2), weight, self.bias_gradient / scalar(total)
