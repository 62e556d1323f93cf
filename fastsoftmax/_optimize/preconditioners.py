"""Preconditioners for the solvers: approximate inverse Hessians of softmax regression.

With x̃ = (x - μ, 1), the Hessian at w is Σ s·T·(diag p - p pᵀ) ⊗ x̃x̃ᵀ / Σs + 2λ. These
approximations of it are used, each made of a sample of the rows for a few passes' worth of work:

    bound   a multiple of Σ s·T·x̃x̃ᵀ / Σs, and 2λ, for every class: it depends on no point. With the
            factor ½ it is nowhere less than the Hessian (Böhning, 1992)
    pooled  the diagonal blocks at w, one for each class: with q_k = s·T·p_k(1 - p_k) / Σs as the
            weights of rows, Σ q_k·x̃x̃ᵀ + 2λ follows from the sum of the weights, the means m_k and
            the covariance of the features. The class's own are the sum, the means and the
            variances; the correlations are those of all classes' covariances together
    full    the Hessian at w, where it is small

Of wide problems only the features with the most curvature are correlated.

The first steps of a fit are made with the bound. Where classes separate, the curvature at the
optimum is far below it, and the others follow the iterate. "full" is for small problems that have
turned out to be slow: digits with noise (100k, 64, 10), to a loss 1e-6 above the lowest, took 231
passes with "pooled" alone, and 90 with both.
"""

import functools
from collections.abc import Callable

import numpy as np

from fastsoftmax._evaluation.grams import gram
from fastsoftmax._evaluation.problem import flatten
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.curvature import Sums, positive, probabilities
from fastsoftmax._optimize.linalg import cholesky_solver
from fastsoftmax._optimize.sample import Curvature
from fastsoftmax._optimize.solvers import Preconditioner
from fastsoftmax.reference import Array

# The curvature of a class is taken to be at least this share of the mean of all. One whose rows are
# all certain hardly curves, and its steps would be far too long.
_LEAST_CURVATURE = 0.1
_MAX_FULL = 1600  # parameters K·D of a Hessian that is formed whole
# How many passes the rows of a whole Hessian may cost. At (100k, 64, 10) fits with 6 and with 24
# took as long: more rows save as many passes as they cost.
_FULL_PASSES = 12


class Preconditioners:
    """The preconditioners of a problem: call it with a point, or with None for the first one."""

    def __init__(self, centred: CentredProblem) -> None:
        self.centred, self.problem, self.sample = centred, centred.problem, centred.sample
        self.sums = Sums(centred)
        self.l2 = centred.problem.l2
        self.n_classes, self.n_features = centred.problem.n_classes, centred.problem.n_features
        self.has_bias = centred.problem.fit_intercept

    def __call__(self, v: Array | None, precise: bool = False) -> Preconditioner:
        """Return the preconditioner at ``v``, or the one to begin with.

        A ``precise`` one takes longer to make, and saves more passes.
        """
        if v is None:
            return self.first
        is_small = self.n_classes * self.sums.n_columns <= _MAX_FULL
        if precise and is_small and not self.sums.is_wide:
            return self._full(v)
        # It is kept for other problems that share the sample.
        curvature = self.sample.curvatures[self.l2] = self.sums.curvature(v)
        return self._pooled(curvature)

    @functools.cached_property
    def first(self) -> Preconditioner:
        """The one to begin with: of the curvature at another problem's points, where it is known.

        Other problems share the sample, and the one with the nearest λ is most like this one.
        """
        known = self.sample.curvatures
        if not known:
            return self._bound()
        return self._pooled(known[min(known, key=lambda l2: abs(_log(l2) - _log(self.l2)))])

    def _bound(self) -> Preconditioner:
        """Make the preconditioner "bound"."""
        if self.sums.is_wide:
            return self._wide_bound()
        # The first step of a fit from zero is made with it, where p(1 - p) is about 1/K: steps with
        # ½ are far too short there, and with 1/K too long. With the geometric mean of the two,
        # (30k, 96, 1000), C = 1e-3, takes 11 passes; with ½ and 1/K it took 19 and 14.
        M = self.sums.bound() * np.sqrt(2 / self.n_classes)
        return self._by_class(cholesky_solver(self._damp(M)))

    def _wide_bound(self) -> Preconditioner:
        """Make the preconditioner "bound" of a wide problem: correlations of some, and a diagonal.

        For a bag of words with N = 100,000 and D = 50,000 the correlations of 64, 256 and 1024
        features took 215, 167 and 118 passes.
        """
        penalty, K, n = 2 * self.l2 * self.problem.penalised, self.n_classes, self.sums.n_columns
        head, M, bound = self.sums.of_head()
        M = self._damp(M.copy())
        if self.has_bias:
            head = np.append(head, n - 1)
        by_row = self.sums.by_row(positive(bound + penalty))
        # Only correlations are taken from these rows: a feature may be missing in all of them.
        scale = 1 / np.sqrt(np.einsum("ii->i", M))
        solve_head, root = cholesky_solver(M * scale[:, None] * scale), np.sqrt(by_row[:, head])

        def solve(G: Array) -> Array:
            out = np.reshape(G.reshape(-1, K, n) / by_row, G.shape)
            roots = np.tile(root, (len(G) // K, 1))
            out[:, head] = solve_head(G[:, head] / roots) / roots
            return out

        return self._by_class(solve)

    def _pooled(self, curvature: Curvature) -> Preconditioner:
        """Make the preconditioner "pooled" where a curvature was taken."""
        n, K = self.n_features, self.n_classes
        total, mean, variance, covariance, scale, head = curvature
        penalty = 2 * self.l2 * scale**2
        everything = sum(part.sum() for part in (total, mean, variance, covariance, penalty))
        if not (total.sum() > 1e-100 and np.isfinite(everything)):
            return self._bound()  # nothing curves any more, or a square lies beyond float32
        raised = np.maximum(total, _LEAST_CURVATURE * total.mean())[:, None]
        root = np.sqrt(positive(raised * variance + penalty))
        M = covariance.copy()
        diagonal = np.einsum("ii->i", M)
        diagonal[:] = positive((1 + 1e-10) * diagonal + K * penalty[head])
        deviation = np.sqrt(diagonal)
        correlate = cholesky_solver(M / deviation / deviation[:, None])

        def within(G: Array) -> Array:
            """Solve for the covariances alone, for G (*, K, n)."""
            out = G / root
            of_head = out[..., head]
            by_row = of_head.reshape(out.size // n, len(M))
            out[..., head] = correlate(by_row).reshape(of_head.shape)
            return np.asarray(np.divide(out, root, out=out))

        if not self.has_bias:
            of_mean = within(mean)
            share = of_mean / (1 / raised + (mean * of_mean).sum(axis=1, keepdims=True))

        def solve(G: Array) -> Array:
            G = G.reshape(-1, K, n + self.has_bias)
            out, g = np.empty_like(G), scale * G[..., :n]
            if self.has_bias:
                bias = G[..., n:]
                z = within(g - mean * bias)
                out[..., n:] = bias / raised - (mean * z).sum(axis=2, keepdims=True)
            else:
                z = within(g)
                z -= share * (mean * z).sum(axis=2, keepdims=True)
            np.multiply(scale, z, out=out[..., :n])
            return out.reshape(-1, n + self.has_bias)

        return self._by_class(solve)

    def _full(self, v: Array) -> Preconditioner:
        """Make the preconditioner "full" at ``v``."""
        n, K, sums = self.sums.n_columns, self.n_classes, self.sums
        W, most = sums.by_row(v), 100 * (n + 100)
        rows, weight = sums.drawn(W, sums.count(float(n * K) ** 2 / 2, most, _FULL_PASSES))
        X = self.sample.rows(rows)
        p = (probabilities(X, W) * np.sqrt(weight)[:, None]).astype(np.float32)
        # A preconditioner needs no more digits than float32 has, and float64 takes twice the time.
        scale = 1 / np.sqrt(positive(np.einsum("ii->i", sums.bound())))
        x = (X * scale).astype(np.float32)

        def fill(rows: slice, out: Array) -> None:
            np.multiply(p[rows, :, None], x[rows, None, :], out=out.reshape(-1, K, n))

        H = -gram(len(x), K * n, np.float32, fill)
        # Between two classes H_kl = -Σ p_k p_l x̃x̃ᵀ; the blocks of a row of H sum up to zero.
        by_class = H.reshape(K, n, K, n)
        for k in range(K):
            by_class[k, :, k] = 0
            by_class[k, :, k] = self._damp(-by_class[k].sum(axis=1), scale, 1e-6)
        # In the direction of a shift common to all classes H is nearly singular; gradients have no
        # part in that direction, so it may be made stiff.
        stiffness = np.einsum("kiki->i", by_class) / K**2
        for i in range(n):
            by_class[:, i, :, i] += stiffness[i]
        if not np.isfinite(H).all():
            return self._bound()
        solve = cholesky_solver(H)
        return self._by_class(
            lambda G: scale * solve((scale * G).reshape(-1, K * n)).reshape(G.shape)
        )

    def _damp(self, M: Array, scale: Array | float = 1.0, floor: float = 1e-10) -> Array:
        """Add the penalty to a matrix Σ x̃x̃ᵀ, and as much as keeps it invertible at any scale."""
        penalty = np.broadcast_to(2 * self.l2 * np.square(scale), len(M)).copy()
        penalty[len(M) - self.has_bias :] = 0
        diagonal = np.einsum("ii->i", M)
        diagonal[:] = positive((diagonal + penalty) * (1 + floor))
        return M

    def _by_class(self, solve: Callable[[Array], Array]) -> Preconditioner:
        """Make a preconditioner of a function that solves for the rows of `Sums.by_row`."""
        n, K = self.n_features, self.n_classes

        def preconditioner(*vectors: Array) -> list[Array]:
            solved = solve(np.concatenate([self.sums.by_row(v) for v in vectors]))
            parts = (solved[i * K : (i + 1) * K] for i in range(len(vectors)))
            return [
                self.centred.without_shift(flatten(W[:, :n], W[:, n] if self.has_bias else None))
                for W in parts
            ]

        return preconditioner


def _log(l2: float) -> float:
    return float(np.log(max(l2, 1e-300)))
