"""Coordinates in which an objective is easier to minimise; its optimum does not move."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax import special
from fastsoftmax._data import evenly
from fastsoftmax.objective import SoftmaxObjective, flatten
from fastsoftmax.solvers import blocks, small_product

Array = npt.NDArray[Any]

_MEAN_ROWS, _FEWEST_MEAN_ROWS, _MEAN_ENTRIES = 4096, 1024, 1 << 20
_POOL_BYTES = 64 << 20


class CentredObjective:
    r"""A `SoftmaxObjective` of the features less their mean, X untouched.

    Variables W, c stand for W and :math:`b = c - Wμ`. It is the same function: only the intercepts
    no longer depend on the weights. The kernel subtracts μ while it packs X, since
    :math:`Wx + (c - Wμ)` cancels in float32 where |μ| is much larger than σ. Without an intercept
    μ = 0, as a shift could not be taken back; for sparse X likewise, as a shift would fill it.
    """

    def __init__(self, objective: SoftmaxObjective) -> None:
        self.objective = objective
        self.pool = Pool(objective)
        # Rounded first, so that what the kernel subtracts is what the algebra here uses.
        self.mean = self.pool.mean.astype(objective.dtype).astype(float)
        self.center = self.mean if self.mean.any() else None

    def __call__(self, v: Array) -> tuple[float, Array]:
        """J and its gradient in W and c."""
        loss, weight, bias = self.objective._evaluate(*self.objective.unpack(v), self.center)
        return loss, self.without_shift(flatten(weight, bias))

    def hessp(self, v: Array, direction: Array) -> Array:
        """Return the Hessian in W and c times a direction."""
        return self.without_shift(self.objective._product(v, direction, self.center))

    def without_shift(self, v: Array) -> Array:
        """Take out of a vector what is common to all classes, in place.

        The loss does not change with it and the penalty wants it to be zero. In gradients it is
        what rounding left, and a metric would blow that up by 1/λ: in float32, Newton's method came
        to a halt over it.
        """
        W, c = self.objective.unpack(v)
        W -= W.mean(axis=0)
        if c is not None:
            c -= c.mean()
        return v

    def hess_diag(self, v: Array) -> Array:
        """Diagonal of the Hessian in W and c."""
        return self.objective._diagonal(v, self.center)

    def original(self, v: Array) -> tuple[Array, Array | None]:
        """(W, b) of a vector of W and c."""
        W, c = self.objective.unpack(v)
        return W, None if c is None else c - W @ self.mean

    def start(self, W: Array, b: Array | None) -> Array:
        """Vector of W and c, from W and b, without the shift common to all classes."""
        W = np.asarray(W, float)
        return self.without_shift(flatten(W, None if b is None else b + W @ self.mean))

    def original_gradient(self, gradient: Array) -> Array:
        """∇J in W and b from the gradient in W and c."""
        if self.center is None:
            return gradient
        weight, bias = self.objective.unpack(gradient)
        assert bias is not None  # without an intercept there is no mean
        return flatten(weight + np.outer(bias, self.mean), bias)


def worthwhile_mean(rows: Array, weight: Array | None = None) -> Array:
    """Weighted mean of the rows, or zeros where no feature lies far from zero for its spread.

    Features near zero need no centring: metrics know of the intercept, and float32 loses nothing.
    The kernel then reads X where it lies, which is a little faster.
    """
    if weight is None:
        weight = np.ones(len(rows))
    total = weight.sum()
    if total == 0:
        return np.zeros(rows.shape[1])
    # Not by BLAS, whose threads would spin on.
    mean = np.einsum("i,ij->j", weight, rows) / total
    variance = np.einsum("i,ij,ij->j", weight, rows, rows) / total - mean**2
    return np.asarray(mean if (mean**2 > variance).any() else np.zeros_like(mean))


class Pool:
    """Rows x̃ = (x - μ, 1) that metrics are made of, in the compute dtype.

    In memory these are all rows; of streamed ones an even sample is kept. μ is the mean of some
    thousand of them: it makes the intercepts nearly independent of the weights, which is all that
    is asked of it.
    """

    def __init__(self, objective: SoftmaxObjective) -> None:
        data = objective._data
        self.fit_intercept, self.dtype = objective.fit_intercept, objective.dtype
        # A sparse sample cannot be bounded by bytes beforehand: as if one in ten was stored.
        bytes_a_row = objective.n_features * data.dtype.itemsize / (10 if data.is_sparse else 1)
        self._X, self._weight = data.sample(max(int(_POOL_BYTES / bytes_a_row), 1000))
        self.n_rows = int(self._X.shape[0])
        self.mean = np.zeros(objective.n_features)
        if self.fit_intercept and not data.is_sparse:
            most = max(_MEAN_ENTRIES // objective.n_features, _FEWEST_MEAN_ROWS)
            rows = self.evenly(min(most, _MEAN_ROWS))
            self.mean = worthwhile_mean(self._X[rows].astype(np.float64), self.weights(rows))

    def evenly(self, n_rows: int) -> Array:
        """Row numbers spread evenly."""
        return evenly(n_rows, self.n_rows)

    def weights(self, rows: Array) -> Array:
        """s·T of some rows."""
        return np.ones(len(rows)) if self._weight is None else self._weight[rows].astype(float)

    def rows(self, rows: Array, columns: Array | None = None) -> Array:
        """Copy some rows, the ones of the intercept included, or only some columns of them."""
        part, mean, n_features = self._X[rows], self.mean, len(self.mean)
        if columns is not None:
            part, mean, n_features = part[:, columns], mean[columns], len(columns)
        out = np.ones((len(rows), n_features + self.fit_intercept), self.dtype)
        part = part if isinstance(part, np.ndarray) else part.toarray()
        np.subtract(part, mean.astype(self.dtype), out=out[:, :n_features])
        return out

    def curvatures(self, W: Array) -> Array:
        """1 - Σ_k p_k² of every row, for W (K, D + 1) of x̃."""
        n_features = len(self.mean)
        bias = W[:, n_features] - W[:, :n_features] @ self.mean if self.fit_intercept else 0.0
        shift = np.asarray(bias, np.float32)[..., None]
        W = np.ascontiguousarray(W[:, :n_features], np.float32)
        out = np.empty(self.n_rows)
        for part in blocks(self.n_rows, 8192):
            logits = small_product(W, self._X[part].astype(np.float32, copy=False))
            P = special.softmax(logits + shift, axis=0)
            out[part] = 1 - np.einsum("ki,ki->i", P, P)
        return np.maximum(out, 0)
