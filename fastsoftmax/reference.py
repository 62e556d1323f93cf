"""The specification in plain NumPy: same names, same signatures, no kernel.

Source of the mathematics: the course note "Derivative of Cross-Entropy Softmax" (CS 584-A, 2021).
With Z = X Wᵀ + b and P = softmax(Z) row by row,

    J      = (1/Σs) Σ_i s_i (lse(z_i) - z_i[y_i]) + λ‖W‖²
    ∇_W J  = (1/Σs) (s ∘ (P - Y))ᵀ X + 2λW
    ∇_b J  = (1/Σs) (s ∘ (P - Y))ᵀ 1

Everything is computed in the dtype of X except the loss, which is summed in float64. The functions
check shapes only as far as NumPy does; `fastsoftmax.functional` is where bad input is explained.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

__all__ = [
    "LinearGrad",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "log_softmax",
    "softmax",
]


class LinearGrad(NamedTuple):
    """Gradients of `linear_cross_entropy`; None for what was not asked for."""

    weight: Array
    bias: Array | None
    input: Array | None


def softmax(x: Array) -> Array:
    """Row-wise softmax of logits (N, K)."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    p: Array = e / e.sum(axis=1, keepdims=True)
    return p


def log_softmax(x: Array) -> Array:
    """Row-wise log-softmax of logits (N, K), exact where softmax underflows."""
    shifted = x - x.max(axis=1, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_p


def linear_cross_entropy(
    X: Array,
    W: Array,
    y: Array,
    *,
    bias: Array | None = None,
    l2: float = 0.0,
    sample_weight: Array | None = None,
) -> float:
    """J(W, b); see `fastsoftmax.linear_cross_entropy`."""
    return linear_cross_entropy_value_and_grad(
        X, W, y, bias=bias, l2=l2, sample_weight=sample_weight
    )[0]


def linear_cross_entropy_value_and_grad(
    X: Array,
    W: Array,
    y: Array,
    *,
    bias: Array | None = None,
    l2: float = 0.0,
    sample_weight: Array | None = None,
) -> tuple[float, LinearGrad]:
    """J(W, b) and its gradient; see `fastsoftmax.linear_cross_entropy_value_and_grad`."""
    dtype = np.float32 if np.result_type(X, np.float32) == np.float32 else np.float64
    X, W, y = np.asarray(X, dtype), np.asarray(W, dtype), np.asarray(y)
    n = np.arange(len(X))
    s = np.ones(len(X), dtype) if sample_weight is None else np.asarray(sample_weight, dtype)
    total = s.sum(dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        Z = X @ W.T
        if bias is not None:
            Z = Z + np.asarray(bias, dtype)
        m = Z.max(axis=1, keepdims=True)
        E = np.exp(Z - m)
        sums = E.sum(axis=1, keepdims=True)
        rows = np.log(sums[:, 0].astype(np.float64)) + (m[:, 0] - Z[n, y])
        # A row of weight zero contributes nothing, whatever its logits are.
        loss = float((np.where(s == 0, 0.0, s * rows)).sum() / total)
        R = np.where(s[:, None] == 0, dtype(0), E * (s[:, None] / sums))
        R[n, y] -= s
        denominator = dtype(total)
        gradient = R.T @ X / denominator + dtype(2 * l2) * W
    loss += float(l2) * float(np.square(W, dtype=np.float64).sum())
    bias_gradient = None if bias is None else R.sum(axis=0) / denominator
    return loss, LinearGrad(gradient, bias_gradient, None)
