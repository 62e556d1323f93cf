"""Preconditioners for the solvers: approximate inverse Hessians of softmax regression.

With x̃ = (x - μ, 1), the Hessian at w is Σ s·T·(diag p - p pᵀ) ⊗ x̃x̃ᵀ / Σs + 2λ. Three
approximations of it are used, each made of a sample of the rows for a few passes' worth of work:

    bound   ½·Σ s·T·x̃x̃ᵀ / Σs + 2λ for every class, which is nowhere less than the Hessian (Böhning,
            1992): one Cholesky factor of D × D, good where the labels are noisy
    full    the Hessian at w itself, where K·D is small
    blocks  its diagonal blocks Σ s·T·p_k(1 - p_k)·x̃x̃ᵀ / Σs + 2λ, one for each class

"full" and "blocks" follow the iterate: where the classes separate, the curvature at the optimum is
far below the bound. Wide problems, and those of many classes, take the correlations of the features
with the most curvature and the diagonal of the Hessian, which is taken anew on the way. For a bag
of words, N = 100,000 and D = 50,000, the 64, 256 and 1024 first features took 215, 167 and 118
passes.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastsoftmax._evaluation.grams import gram
from fastsoftmax._evaluation.problem import flatten
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.linalg import cholesky_solver
from fastsoftmax._optimize.solvers import Preconditioner
from fastsoftmax.reference import Array, softmax

_MAX_FEATURES = 2048
_MAX_FULL = 1600  # parameters K·D of a Hessian that is formed whole
_MAX_BLOCKS = 1 << 24  # entries of all classes' blocks together
# Of more classes the blocks are made only where there are as many rows as a class has features for
# each of them. With fewer, a block is noise: at (20k, 64, 987) two sets of blocks took as long as
# 120 passes and left 51 to make; correlations common to all classes, with the diagonal of each,
# take one pass and leave about 40.
_FEW_CLASSES = 32
# Of a class among many, as a share of the mean of all: one that is settled hardly curves, and its
# steps would be far too long. At (2000, 30, 100), C = 1e4, 1e-4 and 0.1 took 556 and 101 passes.
_LEAST_CURVATURE = 0.1
# How many passes over the data the making of a preconditioner that follows the iterate may cost.
_PASSES = 6
# Features of a wide problem whose correlations are taken into account.
_HEAD = 1024


class Preconditioners:
    """The preconditioners of a problem: call it with a point, or with None for the first one."""

    def __init__(self, centred: CentredProblem) -> None:
        self.centred, self.problem, self.sample = centred, centred.problem, centred.sample
        self.l2 = centred.problem.l2
        self.n_classes = centred.problem.n_classes
        self.has_bias = centred.problem.fit_intercept
        self.n_features = centred.problem.n_features + self.has_bias
        # With fewer rows than features Σ x̃x̃ᵀ is singular: only λ makes it invertible, and rounding
        # errors grow by 1/λ.
        self.has_gram = self.n_features <= min(_MAX_FEATURES, centred.sample.n_rows // 2)
        # Whether the Hessian is formed whole.
        self.is_small = self.n_classes * self.n_features <= _MAX_FULL
        has_few = self.n_classes <= _FEW_CLASSES
        has_blocks = self.n_classes * self.n_features**2 <= _MAX_BLOCKS and (
            has_few or self.n_classes * self.n_features <= centred.sample.n_rows
        )
        self.follows = self.n_features <= _MAX_FEATURES and (self.is_small or has_blocks)
        # Many classes share the correlations of features, and are renewed by their diagonals.
        self.relies_on_renewed = self.has_gram and not (self.follows or has_few)
        self.renews = self.relies_on_renewed or not self.has_gram

    def __call__(self, v: Array | None) -> Preconditioner | None:
        """Return the preconditioner at ``v``; None where there is only the first one."""
        if v is None:
            return self.first
        if not self.follows:
            return self._head(v) if self.relies_on_renewed else None
        return self._full(v) if self.is_small else self._blocks(v)

    @functools.cached_property
    def first(self) -> Preconditioner:
        """The preconditioner that depends on no point."""
        return self._bound() if self.has_gram else self._head()

    def renewed(self, v: Array) -> Preconditioner | None:
        """Return correlations of features with the diagonal at ``v``, where these are renewed."""
        return self._head(v) if self.renews else None

    def _count(self, work: float, passes: float, a_feature: int = 100) -> int:
        """How many rows cost as much as ``passes`` passes, at ``work`` multiply-adds a row.

        There are never more of them than ``a_feature`` for each feature, which is enough.
        """
        n_rows = self.sample.n_rows
        a_pass = 4.0 * self.problem.n_rows * self.n_features * self.n_classes
        rows = max(passes * a_pass / work, 8 * self.n_features, 2000)
        return int(min(rows, a_feature * (self.n_features + 100), n_rows))

    def _curved_sample(self, v: Array, n_rows: int) -> tuple[Array, Array, Array]:
        """Rows x̃, their weights and probabilities; rows with much curvature are drawn more often.

        Where classes separate, only the few rows near the boundaries curve the objective. Of evenly
        drawn rows hardly any is one of them: conjugate gradients took 583 products instead of 133.
        """
        sample, W = self.sample, self._by_row(v)
        every = np.arange(sample.n_rows)
        weight = sample.weights(every)
        weight /= weight.sum()
        if n_rows < sample.n_rows:
            importance = weight * sample.curvatures(W)
            importance = 0.9 * importance / max(importance.sum(), 1e-300) + 0.1 * weight
            edges = np.cumsum(importance)
            places = (np.arange(n_rows) + 0.5) / n_rows * edges[-1]
            every = np.minimum(np.searchsorted(edges, places), sample.n_rows - 1)
            weight = weight[every] / importance[every] * (edges[-1] / n_rows)
        X = sample.rows(every)
        logits = W.astype(X.dtype) @ X.T
        return X, weight, softmax(logits.T, axis=1)

    def _damp(self, M: Array, floor: float = 1e-10) -> Array:
        """Add the penalty to a matrix Σ x̃x̃ᵀ, and as much as keeps it invertible at any scale."""
        diagonal = np.einsum("ii->i", M)
        diagonal[: len(M) - self.has_bias] += 2 * self.l2
        diagonal *= 1 + floor
        diagonal[diagonal <= 0] = 1.0
        return M

    def _bound(self) -> Preconditioner:
        """Make the preconditioner "bound"."""
        # At (60k, 784, 10) fits with 8, 12, 23 and 70 rows a feature took 13, 12, 11 and 11 passes.
        return self._by_class(cholesky_solver(self._damp(self._bound_gram().copy())))

    def _bound_gram(self) -> Array:
        """½·Σ s·T·x̃x̃ᵀ / Σs over evenly drawn rows; it is made once."""
        sample = self.sample
        if sample.bound is None:
            rows = sample.evenly(self._count(self.n_features**2 / 2, 1, 24))
            weight = sample.weights(rows)
            weight /= 2 * max(weight.sum(), 1e-300)
            sample.bound = _gram(lambda part: sample.rows(rows[part]), weight)
        bound: Array = sample.bound
        return bound

    def _head(self, v: Array | None = None) -> Preconditioner:
        """Make the preconditioner of a wide problem, or of one of many classes.

        It has the correlations of the features with the most curvature, which are those that occur
        in most rows, and the diagonal for the others. The diagonal is that of the bound, or of the
        Hessian at ``v``: with the latter a text (500k, 50k, 20) took 63 passes instead of 90.
        """
        inner, K, sample = self.problem, self.n_classes, self.sample
        penalty = 2 * self.l2 * inner.penalised
        if sample.bound is None and not self.has_gram:
            # At zero, p(1 - p) is (K - 1)/K² everywhere: ½·x² is what the bound has instead.
            curved = self.centred.hess_diag(inner.zeros()) - penalty
            sample.bound = curved * (K**2 / (2 * (K - 1)))
        bound: Any = sample.bound
        diagonal = bound + penalty if v is None else self.centred.hess_diag(v)
        diagonal[diagonal <= 0] = 1.0
        by_row, n = self._by_row(diagonal), inner.n_features
        if self.has_gram:
            by_row = np.maximum(by_row, _LEAST_CURVATURE * by_row.mean(axis=0))

        def divide(G: Array) -> Array:
            return np.reshape(G.reshape(-1, *by_row.shape) / by_row, G.shape)

        if self.has_gram:
            head, M = np.arange(n), self._bound_gram()
        elif sample.n_rows < 2 * _HEAD:  # so few that their bound would be singular
            return self._by_class(divide)
        else:
            head, M = self._head_gram(bound)
        M = self._damp(M.copy())
        if self.has_bias:
            head = np.append(head, n)
        # Only correlations are taken from these rows: a feature may be missing in all of them.
        scale = 1 / np.sqrt(np.einsum("ii->i", M))
        solve_head, root = cholesky_solver(M * scale[:, None] * scale), np.sqrt(by_row[:, head])

        def solve(G: Array) -> Array:
            out = divide(G)
            roots = np.tile(root, (len(G) // K, 1))
            out[:, head] = solve_head(G[:, head] / roots) / roots
            return out

        return self._by_class(solve)

    def _head_gram(self, bound: Array) -> tuple[Array, Array]:
        """Return the features with the most curvature, and Σ s·T·x̃x̃ᵀ of these; made once."""
        sample, n = self.sample, self.problem.n_features
        if sample.head is None:
            curved = self._by_row(bound)[:, :n].sum(axis=0)
            head = np.sort(np.argsort(curved)[-_HEAD:])
            rows = sample.evenly(8 * _HEAD)
            M = _gram(sample.rows(rows, head).__getitem__, sample.weights(rows))
            sample.head = head, M
        return sample.head

    def _blocks(self, v: Array) -> Preconditioner:
        """Make the preconditioner "blocks" at ``v``."""
        count = self._count(self.n_classes * self.n_features**2 / 2, _PASSES)
        X, weight, P = self._curved_sample(v, count)
        matrices = (_gram(X.__getitem__, weight * p * (1 - p)) for p in P.T)
        solvers = [cholesky_solver(self._damp(M, 1e-6)) for M in matrices]

        def solve(G: Array) -> Array:
            out = np.empty_like(G)
            for k, solve_class in enumerate(solvers):
                out[k :: len(solvers)] = solve_class(G[k :: len(solvers)])
            return out

        return self._by_class(solve)

    def _full(self, v: Array) -> Preconditioner:
        """Make the preconditioner "full" at ``v``."""
        n, K = self.n_features, self.n_classes
        X, weight, P = self._curved_sample(v, self._count(float(n * K) ** 2 / 2, _PASSES))
        # A preconditioner needs no more digits than float32 has, and float64 takes twice the time.
        x, p = X.astype(np.float32), (P * np.sqrt(weight[:, None])).astype(np.float32)

        def fill(rows: slice, out: Array) -> None:
            np.multiply(p[rows, :, None], x[rows, None, :], out=out.reshape(-1, K, n))

        H = -gram(len(x), K * n, np.float32, fill)
        # Between two classes H_kl = -Σ p_k p_l x̃x̃ᵀ; the blocks of a row of H sum up to zero.
        by_class = H.reshape(K, n, K, n)
        for k in range(K):
            by_class[k, :, k] = 0
            by_class[k, :, k] = self._damp(-by_class[k].sum(axis=1), 1e-6)
        # In the direction of a shift common to all classes H is nearly singular; gradients have no
        # part in that direction, so it may be made stiff.
        stiffness = np.einsum("kiki->i", by_class) / K**2
        for i in range(n):
            by_class[:, i, :, i] += stiffness[i]
        solve = cholesky_solver(H)
        return self._by_class(lambda G: solve(G.reshape(-1, K * n)).reshape(G.shape))

    def _by_row(self, v: Array) -> Array:
        """Return a flat vector as a matrix (K, D + 1), the intercepts in its last column."""
        W, c = self.problem.split(v)
        return W if c is None else np.concatenate([W, c[:, None]], axis=1)

    def _by_class(self, solve: Callable[[Array], Array]) -> Preconditioner:
        """Make a preconditioner of a function that solves for the rows of `_by_row`'s matrices."""
        n, K = self.n_features - self.has_bias, self.n_classes

        def preconditioner(*vectors: Array) -> list[Array]:
            solved = solve(np.concatenate([self._by_row(v) for v in vectors]))
            parts = (solved[i * K : (i + 1) * K] for i in range(len(vectors)))
            return [
                self.centred.without_shift(flatten(W[:, :n], W[:, n] if self.has_bias else None))
                for W in parts
            ]

        return preconditioner


def _gram(take: Callable[[slice], Array], weight: Array) -> Array:
    """Σ weight·x xᵀ for weights ≥ 0; ``take`` gives the rows x of a slice."""
    first = take(slice(0, 1))
    n_rows, n = len(weight), first.shape[1]
    scale = np.sqrt(weight)[:, None].astype(first.dtype)

    def fill(rows: slice, out: Array) -> None:
        np.multiply(take(rows), scale[rows], out=out)

    M = gram(n_rows, n, first.dtype, fill)
    diagonal = np.einsum("ii->i", M)
    # The squares of features may overflow or underflow in float32 where the features do not.
    small = diagonal < 1e-30
    if not np.isfinite(diagonal).all() or (small.any() and take(slice(0, n_rows))[:, small].any()):
        M = gram(n_rows, n, np.float64, fill)
    return M
