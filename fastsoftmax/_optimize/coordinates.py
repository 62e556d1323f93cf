"""Coordinates in which a problem is easier to minimise; its optimum does not move."""

import numpy as np

from fastsoftmax._evaluation.problem import Problem, flatten
from fastsoftmax._optimize.sample import Sample
from fastsoftmax.reference import Array


class CentredProblem:
    r"""A `Problem` of the features less their mean, X untouched.

    Variables W, c stand for W and :math:`b = c - Wμ`. It is the same function: only the intercepts
    no longer depend on the weights. The kernel subtracts μ while it packs X, since
    :math:`Wx + (c - Wμ)` cancels in float32 where |μ| is much larger than σ. Without an intercept
    μ = 0, as a shift could not be taken back; for sparse X likewise, as a shift would fill it.
    """

    def __init__(self, problem: Problem, sample: Sample | None = None) -> None:
        self.problem = problem
        self.sample = Sample(problem) if sample is None else sample
        # Rounded first, so that what the kernel subtracts is what the algebra here uses.
        self.mean = self.sample.mean.astype(problem.dtype).astype(float)
        self.center = self.mean if self.mean.any() else None

    def __call__(self, v: Array) -> tuple[float, Array]:
        """J and its gradient in W and c."""
        loss, gradient = self.problem.evaluate(v, self.center)
        return loss, self.without_shift(gradient)

    def hessp(self, v: Array, direction: Array) -> Array:
        """Return the Hessian in W and c times a direction."""
        return self.without_shift(self.problem.hessian_product(v, direction, self.center))

    def without_shift(self, v: Array) -> Array:
        """Take out of a vector what is common to all classes, in place.

        The loss does not change with it and the penalty wants it to be zero. In gradients it is
        what rounding left, and a metric would blow that up by 1/λ: in float32, Newton's method came
        to a halt over it.
        """
        W, c = self.problem.split(v)
        W -= np.add.reduce(W, axis=0) / len(W)  # which takes half as long as `mean`
        if c is not None:
            c -= np.add.reduce(c) / len(c)
        return v

    def hess_diag(self, v: Array) -> Array:
        """Diagonal of the Hessian in W and c."""
        return self.problem.hessian_diagonal(v, self.center)

    def original(self, v: Array) -> tuple[Array, Array | None]:
        """(W, b) of a vector of W and c."""
        W, c = self.problem.split(v)
        return W, None if c is None else c - W @ self.mean

    def start(self, W: Array, b: Array | None) -> Array:
        """Vector of W and c, from W and b, without the shift common to all classes."""
        W = np.asarray(W, float)
        return self.without_shift(flatten(W, None if b is None else b + W @ self.mean))

    def original_gradient(self, gradient: Array) -> Array:
        """∇J in W and b from the gradient in W and c."""
        if self.center is None:
            return gradient
        weight, bias = self.problem.split(gradient)
        assert bias is not None  # without an intercept there is no mean
        return flatten(weight + np.outer(bias, self.mean), bias)
