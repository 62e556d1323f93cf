"""A sample of the rows, of which means and preconditioners are made."""

from typing import NamedTuple

import numpy as np

from fastsoftmax._evaluation.dataset import evenly
from fastsoftmax._evaluation.problem import Problem
from fastsoftmax.reference import Array

# Rows that μ is made of: as many as have _MEAN_ENTRIES features together, within the two bounds.
_MEAN_ROWS, _FEWEST_MEAN_ROWS, _MEAN_ENTRIES = 4096, 1024, 1 << 20
# Of streamed rows as many are kept as fill this.
_SAMPLE_BYTES = 64 << 20


def worthwhile_mean(rows: Array, weight: Array | None = None) -> Array:
    """Weighted mean of the rows, or zeros where every feature's mean is within its deviation.

    Such features need no centring: preconditioners take the intercept into account, and float32
    loses nothing. The kernel then reads X where it lies, which is a little faster.
    """
    if weight is None:
        weight = np.ones(len(rows))
    total = weight.sum()
    if total == 0:
        return np.zeros(rows.shape[1])
    mean = weight @ rows / total
    variance = np.einsum("i,ij,ij->j", weight, rows, rows) / total - mean**2
    return np.asarray(mean if (mean**2 > variance).any() else np.zeros_like(mean))


class Curvature(NamedTuple):
    """The curvature of the loss at some point, without the penalty; see `preconditioners`.

    Rows have the weights q_k there, and features are those of x - μ times ``scale`` (D,).
    """

    total: Array  # (K,) Σ q_k
    mean: Array  # (K, D)
    variance: Array  # (K, D) of the features about the mean
    covariance: Array  # Σ_k Σ q_k·(x - μ - m_k)(x - μ - m_k)ᵀ of the features ``head``
    scale: Array
    head: Array | slice


class Sample:
    """Rows x̃ = (x - μ, 1) that preconditioners are made of, in the compute dtype.

    In memory these are all rows; of streamed rows an even sample is kept. μ is the mean of some
    thousand of them: it makes the intercepts nearly independent of the weights, and for that an
    approximate mean is enough.
    """

    def __init__(self, problem: Problem) -> None:
        data = problem.data
        self.fit_intercept, self.dtype = problem.fit_intercept, problem.dtype
        # How much memory sparse rows take is not known beforehand: one entry in ten is assumed.
        bytes_a_row = problem.n_features * data.dtype.itemsize / (10 if data.is_sparse else 1)
        # What preconditioners are made of, kept for the next one and for problems that share the
        # sample: see `curvature.Sums`.
        self.bound: Array | None = None
        self.head: tuple[Array, Array, Array] | None = None
        self.curvatures: dict[float, Curvature] = {}  # the last one for each λ
        self._X, self._weight = data.sample(max(int(_SAMPLE_BYTES / bytes_a_row), 1000))
        self.n_rows = int(self._X.shape[0])
        self.mean = np.zeros(problem.n_features)
        if self.fit_intercept and not data.is_sparse:
            most = max(_MEAN_ENTRIES // problem.n_features, _FEWEST_MEAN_ROWS)
            rows = self.evenly(min(most, _MEAN_ROWS))
            self.mean = worthwhile_mean(self._X[rows].astype(np.float64), self.weights(rows))

    def evenly(self, n_rows: int) -> Array:
        """Row numbers spread evenly."""
        return evenly(n_rows, self.n_rows)

    def weights(self, rows: Array) -> Array:
        """s·T of some rows."""
        return np.ones(len(rows)) if self._weight is None else self._weight[rows].astype(float)

    def stored(self, rows: Array) -> Array:
        """Return some rows as they are, SciPy's CSR where they are sparse."""
        part: Array = self._X[rows]
        return part

    def rows(self, rows: Array, columns: Array | None = None) -> Array:
        """Copy some rows, the ones of the intercept included, or only some columns of them."""
        part, mean, n_features = self._X[rows], self.mean, len(self.mean)
        if columns is not None:
            part, mean, n_features = part[:, columns], mean[columns], len(columns)
        out = np.ones((len(rows), n_features + self.fit_intercept), self.dtype)
        part = part if isinstance(part, np.ndarray) else part.toarray()
        np.subtract(part, mean.astype(self.dtype), out=out[:, :n_features])
        return out
