"""Adam, the optimiser of ``partial_fit``: a step for each mini-batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.backend import accumulator
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.targets import Targets, penalty
from fastsoftmax._kernels.modes import GRADIENT
from fastsoftmax._optimize.sample import worthwhile_mean

Array = npt.NDArray[Any]

_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_MAX_BATCH = 32768
_MEAN_ROWS = 16384
# The learning rate falls as 1/√(1 + step/_HALF_LIFE), so that the noise of batches averages out.
_HALF_LIFE = 50


@dataclasses.dataclass
class Adam:
    """A linear softmax model in training: its parameters, and the moments of their gradients.

    Steps are taken in the coordinates of standardised features, whose mean and scale come from the
    first batch, so that one learning rate suits all of them. The penalty λ‖W‖² stays on W.
    """

    W: Array  # (K, D), of the features less their mean
    c: Array
    l2: float
    fit_intercept: bool
    learning_rate: float
    mean: Array
    scale: Array
    step: int = 0
    moments: list[Array] = dataclasses.field(default_factory=list)

    @classmethod
    def start(
        cls,
        X: Any,
        W: Array,
        b: Array,
        *,
        l2: float,
        fit_intercept: bool,
        learning_rate: float,
    ) -> Adam:
        """Begin at W and b, with the mean and the scale of the rows of X."""
        first = np.arange(min(len(X), _MEAN_ROWS)) * len(X) // min(len(X), _MEAN_ROWS)
        if isinstance(X, CSR):
            rows = X.matrix()[first]
            mean = np.zeros(W.shape[1])
            variance = np.asarray(rows.multiply(rows).mean(axis=0), float).ravel()
        else:
            rows = X[first].astype(np.float64)
            mean = worthwhile_mean(rows) if fit_intercept else np.zeros(W.shape[1])
            variance = np.square(rows - mean).mean(axis=0)
        # A feature not seen yet must not take a step of 1/0.
        scale = np.sqrt(np.maximum(variance, 1e-4 * variance.mean()))
        scale[scale == 0] = 1.0
        mean = mean.astype(W.dtype)
        return cls(
            W=W.copy(),
            c=(b + W @ mean).astype(W.dtype),
            l2=l2,
            fit_intercept=fit_intercept,
            learning_rate=learning_rate,
            mean=mean,
            scale=scale.astype(W.dtype),
            moments=[np.zeros_like(a) for a in (W, W, b, b)],
        )

    @property
    def b(self) -> Array:
        """Intercepts of the features as they are."""
        return np.asarray(self.c - self.W @ self.mean)

    def epoch(self, X: Any, targets: Targets, batch_size: int, rng: np.random.Generator) -> float:
        """Pass once over the rows, in batches of every n-th row; return the mean of their losses.

        Rows that lie n apart mix sorted data well enough, and no row is copied: a shuffle would
        move all of X.
        """
        n_batches = max(len(X) // batch_size, 1)
        loss = total = 0.0
        for first in rng.permutation(n_batches):
            rows = slice(first, None, n_batches)
            batch = targets.take(rows, len(X))
            if batch.total > 0:
                loss += self.update(_take(X, rows), batch)
                total += batch.total
        return loss / max(total, 1e-300) + penalty(self.W, self.l2)

    def update(self, X: Any, targets: Targets) -> float:
        """Take one step; return the sum of the batch's losses before it."""
        center = self.mean if self.mean.any() else None
        sums = accumulator(self.W, self.c, center, sparse=isinstance(X, CSR), mode=GRADIENT)
        sums.add(X, targets)
        loss, weight, bias = sums.finish(targets.total, 0.0)
        weight += self.W.dtype.type(2 * self.l2) * self.W
        self.step += 1
        corrected = np.sqrt(1 - _SQUARE_DECAY**self.step) / (1 - _DECAY**self.step)
        rate = float(self.learning_rate * corrected / np.sqrt(1 + self.step / _HALF_LIFE))
        m, v, m_bias, v_bias = self.moments
        self.W -= (rate / self.scale) * _direction(weight / self.scale, m, v)
        if self.fit_intercept:
            self.c -= rate * _direction(bias, m_bias, v_bias)
        return float(loss * targets.total)


def _direction(gradient: Array, m: Array, v: Array) -> Array:
    """Update the moments m and v in place, and return Adam's direction."""
    m *= _DECAY
    m += (1 - _DECAY) * gradient
    v *= _SQUARE_DECAY
    v += (1 - _SQUARE_DECAY) * np.square(gradient)
    return np.asarray(m / (np.sqrt(v) + _EPSILON))


def automatic_batch_size(n_rows: int) -> int:
    """Enough batches to make progress in an epoch, each large enough for all cores."""
    return min(max(n_rows // 30, 64), _MAX_BATCH)


def _take(X: Any, rows: slice) -> Any:
    """View some rows of an array, or copy those of a CSR matrix."""
    if not isinstance(X, CSR):
        return X[rows]
    part = X.matrix()[rows]
    return CSR(part.data, part.indices, part.indptr.astype(np.int64), part.shape)
