"""Coordinates in which an objective is easier to minimise; its optimum does not move."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._csr import CSR
from fastsoftmax.objective import SoftmaxObjective, flatten

Array = npt.NDArray[Any]


class StandardizedObjective:
    r"""A `SoftmaxObjective` in the coordinates of standardised features, X untouched.

    With :math:`x̂ = (x - μ)/σ`, variables V, c stand for :math:`W = V/σ`, :math:`b = c - Wμ`. It is
    the same function: the penalty stays on W, so the optimum does not move, only the conditioning
    changes. The kernel subtracts μ while it packs X, since :math:`Wx + (c - Wμ)` cancels in
    float32 where |μ| is much larger than σ. Without an intercept μ = 0 and σ is the root mean
    square, as a shift could not be taken back; for sparse X likewise, as a shift would fill it.
    """

    def __init__(self, objective: SoftmaxObjective) -> None:
        self.objective = objective
        X, weight = objective._X, objective._targets.weight
        self.centred = objective.fit_intercept and not isinstance(X, CSR)
        if isinstance(X, CSR):
            mean, variance = np.zeros(objective.n_features), sparse_mean_squares(X, weight)
        else:
            mean, variance = column_moments(X, weight)
            if not objective.fit_intercept:
                variance, mean = variance + mean**2, np.zeros_like(mean)
        scale = np.sqrt(variance)
        noise = 16 * np.finfo(np.float64).eps * np.sqrt(len(X)) * np.abs(mean)
        self.scale = np.where(scale > noise, scale, 1.0)
        # Rounded first, so that what the kernel subtracts is what the algebra here uses.
        self.mean = mean.astype(objective.dtype).astype(np.float64)
        self.x0 = objective.x0

    def __call__(self, v: Array) -> tuple[float, Array]:
        """J and its gradient in V and c."""
        V, c = self.objective.unpack(v)
        center = self.mean if self.centred else None
        loss, weight, bias = self.objective._evaluate(V / self.scale, c, center)
        return loss, flatten(weight / self.scale, bias)

    def original(self, v: Array) -> tuple[Array, Array | None]:
        """(W, b) of a vector of V and c."""
        V, c = self.objective.unpack(v)
        W = V / self.scale
        return W, None if c is None else c - W @ self.mean

    def original_gradient(self, gradient: Array) -> Array:
        """∇J in W and b from the gradient in V and c."""
        weight, bias = self.objective.unpack(gradient)
        weight = weight * self.scale
        if bias is not None:
            weight = weight + np.outer(bias, self.mean)
        return flatten(weight, bias)


def column_moments(X: Array, weight: Array | None) -> tuple[Array, Array]:
    """Weighted mean and variance of the columns in float64, block by block (Chan's update)."""
    n_features = X.shape[1]
    mean, squares, total = np.zeros(n_features), np.zeros(n_features), 0.0
    step = max((1 << 17) // n_features, 1)
    for start in range(0, len(X), step):
        rows = X[start : start + step].astype(np.float64, order="C")  # same bits for any layout
        w = np.ones(len(rows)) if weight is None else weight[start : start + step].astype(float)
        amount = w.sum()
        if amount == 0:
            continue
        block_mean = w @ rows / amount
        rows -= block_mean
        total += amount
        shift = block_mean - mean
        mean += shift * (amount / total)
        squares += w @ np.square(rows, out=rows) + shift**2 * (amount * (total - amount) / total)
    return mean, squares / total


def sparse_mean_squares(X: CSR, weight: Array | None) -> Array:
    """Weighted mean of the squares of the columns of a CSR matrix, zeros included."""
    total, squares = 0.0, np.zeros(X.shape[1])
    for start in range(0, len(X), 1 << 16):
        indptr = X.indptr[start : start + (1 << 16) + 1]
        nonzeros = slice(indptr[0], indptr[-1])
        w = np.ones(len(indptr) - 1) if weight is None else weight[start : start + len(indptr) - 1]
        terms = np.square(X.data[nonzeros], dtype=np.float64) * np.repeat(w, np.diff(indptr))
        squares += np.bincount(X.indices[nonzeros], terms, X.shape[1])
        total += float(w.sum())
    return squares / total
