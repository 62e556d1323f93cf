"""Adam, the optimiser of ``partial_fit``: a step for each mini-batch."""

from typing import Any

import numpy as np

from fastsoftmax._evaluation.backend import accumulator
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.dataset import evenly
from fastsoftmax._evaluation.targets import Targets, penalty
from fastsoftmax._kernels.modes import GRADIENT
from fastsoftmax._optimize.sample import worthwhile_mean
from fastsoftmax.reference import Array

_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_MEAN_ROWS = 16384
# The learning rate falls as 1/√(1 + step/_HALF_LIFE), so that the noise of batches averages out.
_HALF_LIFE = 50
# The share of the latest rows in means and scales, at least; and by how much the scale of a feature
# may at most be below that of the latest rows, or its mean be away from theirs.
_FORGETTING, _MOST_DEVIATIONS = 0.2, 4.0


class Adam:
    """A linear softmax model in training: its parameters, and the moments of their gradients.

    Steps are taken in the coordinates of standardised features, so that one learning rate suits all
    of them. Means and scales follow the rows of each call of `see`: a feature may occur late, and a
    first batch of an unusual scale must not decide for good. The penalty λ‖W‖² stays on W.
    """

    def __init__(self, W: Array, b: Array, fit_intercept: bool) -> None:
        n_features = W.shape[1]
        self.W, self.c = W, b  # W (K, D), of the features less their mean
        self.fit_intercept = fit_intercept
        self.l2 = self.learning_rate = 0.0  # set before every epoch
        self.mean, self.scale = np.zeros(n_features, W.dtype), np.ones(n_features, W.dtype)
        self.calls = np.zeros(n_features)  # of `see` in which the feature was not 0
        self.step, self.moments = 0, [np.zeros_like(a) for a in (W, W, b, b)]

    def see(self, X: Any) -> None:
        """Let the means and the scales of the features follow the rows of X."""
        rows = evenly(_MEAN_ROWS, len(X))
        mean = np.zeros(len(self.mean))
        if isinstance(X, CSR):
            sampled = X.matrix()[rows]
            square = np.asarray(sampled.multiply(sampled).mean(axis=0), float).ravel()
        else:
            sampled = X[rows].astype(np.float64)
            if self.fit_intercept:
                mean = worthwhile_mean(sampled)
            square = np.square(sampled - mean).mean(axis=0)
        seen, first = square > 0, (square > 0) & (self.calls == 0)
        self.calls += seen
        rate = np.maximum(1 / np.maximum(self.calls, 1), _FORGETTING)
        spread = np.sqrt(np.where(seen, square, 1.0))
        # By logarithms, since the scales of two batches may differ by powers of ten.
        scale = self.scale ** (1 - rate) * spread**rate
        scale = np.where(seen, np.maximum(scale, spread / _MOST_DEVIATIONS), self.scale)
        # Weights that were learnt at a far smaller scale would be far too large at this one.
        grown = ~first & (scale > _MOST_DEVIATIONS * self.scale)
        self.W *= np.where(grown, self.scale / scale, 1.0).astype(self.W.dtype)
        self.scale = scale.astype(self.W.dtype)
        far = np.abs(mean - self.mean) > _MOST_DEVIATIONS * spread
        moved = np.where(far, mean, self.mean + rate * (mean - self.mean)).astype(self.W.dtype)
        self.c += self.W @ (moved - self.mean)
        self.mean = moved

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


def _take(X: Any, rows: slice) -> Any:
    """View some rows of an array, or copy those of a CSR matrix."""
    if not isinstance(X, CSR):
        return X[rows]
    part = X.matrix()[rows]
    return CSR(part.data, part.indices, part.indptr.astype(np.int64), part.shape)
