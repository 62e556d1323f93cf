"""The minimisation problem that everything inside the package works with."""

import numpy as np

from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.dataset import Dataset
from fastsoftmax._kernels.modes import DIAGONAL, GRADIENT, HESSIAN, LOSS, PRODUCT
from fastsoftmax.reference import Array

MAX_HESSIAN = 8192  # parameters up to which the Hessian is formed: 512 MiB


class Problem:
    """J(W, b) over the rows of a data set, as a function of one flat float64 vector.

    Solvers, estimators, Dask and the command line use this interface;
    `fastsoftmax.SoftmaxObjective` is its public form, which checks every vector it is given.

    The flat vector holds W (K, D) in C order and then, with an intercept, b (K,). Methods that take
    a ``center`` (D,) subtract it from every row of X while the kernel reads the row.

    ``data`` are the rows and their targets: in memory, streamed, or on Dask's workers. ``dtype`` is
    the precision of the arithmetic, ``size`` the length of the flat vector.
    """

    def __init__(self, data: Dataset, n_classes: int, l2: float, fit_intercept: bool) -> None:
        self.data = data
        self.dtype = validate.compute_dtype(data.dtype, "X")
        self.n_rows, self.n_features, self.n_classes = data.n_rows, data.n_features, n_classes
        self.l2 = validate.as_strength(l2)
        self.fit_intercept = validate.as_flag(fit_intercept, "fit_intercept")
        self.size = n_classes * (data.n_features + self.fit_intercept)

    def zeros(self) -> Array:
        """Return a fresh vector of zeros."""
        return np.zeros(self.size)

    def split(self, w: Array) -> tuple[Array, Array | None]:
        """Return views (W, b) of a flat vector; b is None without an intercept."""
        n = self.n_classes * self.n_features
        W = w[:n].reshape(self.n_classes, self.n_features)
        return W, w[n:] if self.fit_intercept else None

    @property
    def penalised(self) -> Array:
        """1 for the weights of a flat vector, 0 for its intercepts."""
        return (np.arange(self.size) < self.n_classes * self.n_features).astype(float)

    def evaluate(self, w: Array, center: Array | None = None) -> tuple[float, Array]:
        """Return J and its gradient (size,) at ``w``."""
        sums = self.data.sum(*self._computed(w), center, mode=GRADIENT)
        loss, weight, bias = sums.finish(self.data.total, self.l2)
        return loss, self._flat(weight, bias)

    def value(self, w: Array) -> float:
        """Return J at ``w``, which takes less than its gradient."""
        return float(self.data.sum(*self._computed(w), mode=LOSS).loss(self.data.total, self.l2))

    def hessian_product(self, w: Array, v: Array, center: Array | None = None) -> Array:
        """Return the Hessian at ``w`` times ``v``."""
        direction = self._computed(v)
        sums = self.data.sum(*self._computed(w), center, mode=PRODUCT, direction=direction)
        product = self._flat(*sums.finish(self.data.total, 0.0)[1:])
        n = self.n_classes * self.n_features
        product[:n] += 2 * self.l2 * np.asarray(v, np.float64)[:n]
        return product

    def hessian_diagonal(self, w: Array, center: Array | None = None) -> Array:
        """Return the diagonal (size,) of the Hessian at ``w``."""
        sums = self.data.sum(*self._computed(w), center, mode=DIAGONAL)
        diagonal = self._flat(*sums.finish(self.data.total, 0.0)[1:])
        return diagonal + 2 * self.l2 * self.penalised

    def hessian(self, w: Array) -> Array:
        """Return the Hessian (size, size) at ``w``, where there are not too many parameters."""
        if self.size > MAX_HESSIAN:
            raise ValueError(
                f"size: expected at most {MAX_HESSIAN} parameters for a whole Hessian, got "
                f"{self.size}; hessp multiplies with it at any size"
            )
        H: Array = self.data.sum(*self._computed(w), mode=HESSIAN).hessian(self.data.total)
        np.einsum("ii->i", H)[...] += 2 * self.l2 * self.penalised
        return H

    def _computed(self, w: Array) -> tuple[Array, Array | None]:
        """W and b in the compute dtype, in memory of a kind that the kernels were compiled for."""
        W, b = self.split(w)
        W = validate.as_weights(W, self.n_features, self.dtype)
        return W, validate.as_bias(b, self.n_classes, self.dtype)

    def _flat(self, weight: Array, bias: Array) -> Array:
        return flatten(weight, bias if self.fit_intercept else None)


def flatten(weight: Array, bias: Array | None) -> Array:
    """Return the flat float64 vector of weights (K, D) and, where there are some, biases (K,)."""
    parts = [weight.ravel()] if bias is None else [weight.ravel(), bias]
    return np.concatenate(parts, dtype=np.float64)
