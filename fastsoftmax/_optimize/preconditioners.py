"""Preconditioners for the solvers: approximate inverse Hessians of softmax regression.

With x̃ = (x - μ, 1), the Hessian at w is Σ s·T·(diag p - p pᵀ) ⊗ x̃x̃ᵀ / Σs + 2λ. These
approximations of it are used, each made of a sample of the rows for a few passes' worth of work:

    bound   √(1/2K)·Σ s·T·x̃x̃ᵀ / Σs + 2λ for every class, which depends on no point: with ½ in
            place of the root it would be nowhere less than the Hessian (Böhning, 1992)
    pooled  its diagonal blocks at w, one for each class: with q_k = s·T·p_k(1 - p_k) / Σs as the
            weights of rows, Σ q_k·x̃x̃ᵀ + 2λ follows from the sum of the weights, the means m_k and
            the covariance of the features. The class's own are the sum, the means and the
            variances; the correlations are those of all classes' covariances together
    full    the Hessian at w, where it is small

Of more than _MAX_FEATURES features only those with the most curvature are correlated.

The first steps of a fit are made with the bound. Where classes separate, the curvature at the
optimum is far below it, and the others follow the iterate. With blocks of sampled rows of each
class in place of "pooled", and Newton's method, (20k, 128, 200) with C = 1 took 260 passes instead
of 18. "full" is for small problems that have turned out to be slow: digits with noise
(100k, 64, 10), to a loss 1e-6 above the lowest, took 231 passes with "pooled" alone, 174 with
Newton's method, and 90 with both in L-BFGS.
"""

import functools
from collections.abc import Callable

import numpy as np

from fastsoftmax._evaluation.grams import gram
from fastsoftmax._evaluation.problem import flatten
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.linalg import cholesky_solver
from fastsoftmax._optimize.sample import Curvature
from fastsoftmax._optimize.solvers import Preconditioner
from fastsoftmax.reference import Array

_MAX_FEATURES = 2048
# Of a class among many, as a share of the mean of all: one that is settled hardly curves, and its
# steps would be far too long. At (2000, 30, 100), C = 1e4, with correlations of the bound, 1e-4 and
# 0.1 took 556 and 101 passes. The same holds for the variance of one feature.
_LEAST_CURVATURE = 0.1
# Rows of the sample that the pooled curvature is made of, for each feature and for each class. Of
# fewer the means of classes are noise: at (20k, 128, 200), C = 100, 24 and 20 took 52 passes, twice
# as many rows as these 34, these 38; but at (50k, 100, 10) twice as many cost 7 passes.
_ROWS_A_FEATURE, _ROWS_A_CLASS = 50, 25
_MAX_FULL = 1600  # parameters K·D of a Hessian that is formed whole
# How many passes the rows of a whole Hessian may cost: of (100k, 64, 10), 6 and 24 took as long.
_FULL_PASSES = 12
# Rows with much curvature are looked for among so many times the rows that are needed.
_DRAWN_FROM = 16
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
        self.is_wide = self.n_features > min(_MAX_FEATURES, centred.sample.n_rows // 2)

    def __call__(self, v: Array | None, precise: bool = False) -> Preconditioner:
        """Return the preconditioner at ``v``, or the one to begin with.

        A ``precise`` one may cost more passes than the others save where few are to be made.
        """
        if v is None:
            return self.first
        is_small = self.n_classes * self.n_features <= _MAX_FULL
        return self._full(v) if precise and is_small and not self.is_wide else self._pooled(v)

    @functools.cached_property
    def first(self) -> Preconditioner:
        """The preconditioner to begin with: the last one of a problem with the same sample."""
        return self._bound() if self.sample.curvature is None else self._pooled()

    def _count(self, work: float, most: int, passes: int = 1) -> int:
        """How many rows cost as much as ``passes`` passes, at ``work`` multiply-adds a row."""
        a_pass = 4.0 * self.problem.n_rows * self.n_features * self.n_classes
        rows = max(passes * a_pass / work, 8 * self.n_features, 2000)
        return int(min(rows, most, self.sample.n_rows))

    def _drawn(self, W: Array, count: int) -> tuple[Array, Array]:
        """Draw rows, and return their weights: the more a row curves at W, the likelier it is.

        Where classes separate, only the few rows near the boundaries curve the objective, and of
        evenly drawn rows hardly any is one of them: digits with noise (100k, 64, 10) took 197
        passes with even rows, and 117 with these, to 1e-4 above the lowest loss.
        """
        sample = self.sample
        rows = sample.evenly(min(_DRAWN_FROM * count, sample.n_rows))
        some = self._curvatures(rows[:: max(len(rows) // 1024, 1)], W)
        # Drawing pays where few rows have most of the curvature.
        if len(rows) == count or some.sum() ** 2 > len(some) * np.square(some).sum() / 4:
            rows = sample.evenly(count)
            weight = sample.weights(rows)
            return rows, weight / max(weight.sum(), 1e-300)
        weight = sample.weights(rows)
        weight /= max(weight.sum(), 1e-300)
        importance = weight * self._curvatures(rows, W)
        importance = 0.9 * importance / max(importance.sum(), 1e-300) + 0.1 * weight
        edges = np.cumsum(importance)
        places = (np.arange(count) + 0.5) / count * edges[-1]
        taken = np.minimum(np.searchsorted(edges, places), len(rows) - 1)
        return rows[taken], weight[taken] / importance[taken] * (edges[-1] / count)

    def _curvatures(self, rows: Array, W: Array) -> Array:
        """1 - Σ_k p_k² of some rows."""
        parts = [rows[i : i + 1024] for i in range(0, len(rows), 1024)]
        of_parts = [_probabilities(self.sample.rows(part), W) for part in parts]
        squares = np.concatenate([np.einsum("ik,ik->i", P, P) for P in of_parts])
        return np.asarray(np.maximum(1 - squares, 0))

    def _damp(self, M: Array, floor: float = 1e-10) -> Array:
        """Add the penalty to a matrix Σ x̃x̃ᵀ, and as much as keeps it invertible at any scale."""
        diagonal = np.einsum("ii->i", M)
        diagonal[: len(M) - self.has_bias] += 2 * self.l2
        diagonal *= 1 + floor
        diagonal[diagonal <= 0] = 1.0
        return M

    def _bound(self) -> Preconditioner:
        """Make the preconditioner "bound"."""
        if self.is_wide:
            return self._wide_bound()
        # The first step of a fit from zero is made with it, where p(1 - p) is about 1/K: steps with
        # ½ are far too short there, and with 1/K too long. With the mean of the two,
        # (30k, 96, 1000), C = 1e-3, takes 11 passes; with ½ and 1/K it took 19 and 14.
        M = self._bound_gram() * np.sqrt(2 / self.n_classes)
        return self._by_class(cholesky_solver(self._damp(M)))

    def _bound_gram(self) -> Array:
        """½·Σ s·T·x̃x̃ᵀ / Σs over evenly drawn rows; it is made once."""
        sample, n = self.sample, self.n_features
        if sample.bound is None:
            # At (60k, 784, 10), 8, 12, 23 and 70 rows a feature took 13, 12, 11 and 11 passes.
            rows = sample.evenly(self._count(n**2 / 2, 24 * (n + 100)))
            weight = sample.weights(rows)
            weight /= 2 * max(weight.sum(), 1e-300)
            sample.bound = _gram(lambda part: sample.rows(rows[part]), weight)
        bound: Array = sample.bound
        return bound

    def _pooled(self, v: Array | None = None) -> Preconditioner:
        """Make the preconditioner "pooled" at ``v``, or where the sample knows the curvature."""
        if v is not None:
            take = self._wide_curvature if self.is_wide else self._curvature
            self.sample.curvature = take(v)
        curvature, n, K = self.sample.curvature, self.problem.n_features, self.n_classes
        assert curvature is not None
        total, mean, variance, covariance, scale, head = curvature
        everything = total.sum() + variance.sum() + covariance.sum()
        if not (total.sum() > 1e-100 and np.isfinite(everything)):
            return self._bound()  # nothing curves any more, or a square lies beyond float32
        raised = np.maximum(total, _LEAST_CURVATURE * total.mean())[:, None]
        penalty = 2 * self.l2 * scale**2
        root = np.sqrt(_positive(raised * variance + penalty))
        M = covariance.copy()
        diagonal = np.einsum("ii->i", M)
        diagonal[:] = _positive((1 + 1e-10) * diagonal + K * penalty[head])
        correlate = cholesky_solver(M / np.sqrt(np.outer(diagonal, diagonal)))

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
            G = G.reshape(-1, K, self.n_features)
            out, g = np.empty_like(G), scale * G[..., :n]
            if self.has_bias:
                bias = G[..., n:]
                z = within(g - mean * bias)
                out[..., n:] = bias / raised - (mean * z).sum(axis=2, keepdims=True)
            else:
                z = within(g)
                z -= share * (mean * z).sum(axis=2, keepdims=True)
            np.multiply(scale, z, out=out[..., :n])
            return out.reshape(-1, self.n_features)

        return self._by_class(solve)

    def _curvature(self, v: Array) -> Curvature:
        """Take the curvature at ``v`` of evenly drawn rows, their features scaled for float32."""
        sample, n, K = self.sample, self.problem.n_features, self.n_classes
        square = 2 * np.einsum("ii->i", self._bound_gram())[:n]
        scale = 1 / np.sqrt(np.where(square > 0, square, 1.0))
        W = self._by_row(v)
        most = max(_ROWS_A_FEATURE * (n + 100), _ROWS_A_CLASS * K)
        every, weight = self._drawn(W, self._count(n**2 / 2 + 3 * n * K, most))
        sums = np.zeros((K, 2 * n + 1))

        def fill(rows: slice, out: Array) -> None:
            X = sample.rows(every[rows])
            moments = np.ones((len(X), 2 * n + 1), np.float32)
            x = moments[:, :n]
            np.multiply(X[:, :n], scale.astype(X.dtype), out=x, casting="same_kind")
            np.square(x, out=moments[:, n : 2 * n])
            P = _probabilities(X, W)
            q = (P * (1 - P) * weight[rows, None]).astype(np.float32)
            np.add(sums, q.T @ moments, out=sums)
            np.multiply(x, np.sqrt(np.maximum(q.sum(axis=1, keepdims=True), 0)), out=out)

        second = gram(len(every), n, np.float32, fill)
        total = np.maximum(sums[:, 2 * n], 0)
        divisor = np.where(total > 0, total, 1.0)[:, None]
        mean = sums[:, :n] / divisor
        covariance = second - (mean * total[:, None]).T @ mean
        common = np.einsum("ii->i", covariance) / max(total.sum(), 1e-300)
        variance = sums[:, n : 2 * n] / divisor - mean**2
        variance = np.maximum(variance, _LEAST_CURVATURE * common)
        return Curvature(total, mean, variance, covariance, scale, slice(None))

    def _wide_curvature(self, v: Array) -> Curvature:
        """Take the curvature at ``v``: squares of all rows, means and correlations of some.

        With means and correlations of the bound, (50k, 50k, 20) took 47 passes instead of 25.
        """
        sample, n, K = self.sample, self.problem.n_features, self.n_classes
        W, head = self._by_row(v), self._of_head()[0]
        shift = -W[:, :n] @ sample.mean + (W[:, n] if self.has_bias else 0)
        every = sample.evenly(8 * _HEAD)
        weight = sample.weights(every)
        weight /= max(weight.sum(), 1e-300)
        total, sums, of_rows = np.zeros(K), np.zeros((n, K)), np.zeros(len(every))
        for i in range(0, len(every), 1024):
            part = slice(i, i + 1024)
            X = sample.stored(every[part])
            P = _softmax(X @ W[:, :n].T.astype(sample.dtype) + shift)
            q = P * (1 - P) * weight[part, None]
            total += q.sum(axis=0)
            sums += X.T @ q
            of_rows[part] = q.sum(axis=1)
        divisor = _positive(total)[:, None]
        mean = sums.T / divisor - sample.mean
        second = _gram(lambda part: sample.rows(every[part], head)[:, : len(head)], of_rows)
        covariance = second - (mean[:, head] * total[:, None]).T @ mean[:, head]
        square = self._by_row(self.centred.hess_diag(v) - 2 * self.l2 * self.problem.penalised)
        if self.has_bias:
            total = square[:, n]
            divisor = _positive(total)[:, None]
        variance = square[:, :n] / divisor
        variance = np.maximum(variance - mean**2, _LEAST_CURVATURE * variance)
        return Curvature(total, mean, variance, covariance, np.ones(n), head)

    def _full(self, v: Array) -> Preconditioner:
        """Make the preconditioner "full" at ``v``."""
        n, K = self.n_features, self.n_classes
        W, most = self._by_row(v), 100 * (n + 100)
        rows, weight = self._drawn(W, self._count(float(n * K) ** 2 / 2, most, _FULL_PASSES))
        X = self.sample.rows(rows)
        P = _probabilities(X, W) * np.sqrt(weight)[:, None]
        # A preconditioner needs no more digits than float32 has, and float64 takes twice the time.
        x, p = X.astype(np.float32), P.astype(np.float32)

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

    def _wide_bound(self) -> Preconditioner:
        """Make the preconditioner "bound" of a wide problem: correlations of some, and a diagonal.

        For a bag of words with N = 100,000 and D = 50,000 the correlations of 64, 256 and 1024
        features took 215, 167 and 118 passes.
        """
        penalty, K, n = 2 * self.l2 * self.problem.penalised, self.n_classes, self.n_features
        head, M, bound = self._of_head()
        M = self._damp(M.copy())
        if self.has_bias:
            head = np.append(head, n - 1)
        by_row = self._by_row(_positive(bound + penalty))
        # Only correlations are taken from these rows: a feature may be missing in all of them.
        scale = 1 / np.sqrt(np.einsum("ii->i", M))
        solve_head, root = cholesky_solver(M * scale[:, None] * scale), np.sqrt(by_row[:, head])

        def solve(G: Array) -> Array:
            out = np.reshape(G.reshape(-1, K, n) / by_row, G.shape)
            roots = np.tile(root, (len(G) // K, 1))
            out[:, head] = solve_head(G[:, head] / roots) / roots
            return out

        return self._by_class(solve)

    def _of_head(self) -> tuple[Array, Array, Array]:
        """Return the features with most curvature, their Σ s·T·x̃x̃ᵀ, and the bound's diagonal."""
        sample, inner, K = self.sample, self.problem, self.n_classes
        if sample.head is None:
            # At zero, p(1 - p) is (K - 1)/K² everywhere: ½·x² is what the bound has instead.
            curved = self.centred.hess_diag(inner.zeros()) - 2 * self.l2 * inner.penalised
            bound = curved * (K**2 / (2 * (K - 1)))
            by_feature = self._by_row(curved)[:, : inner.n_features].sum(axis=0)
            most = _HEAD if sample.n_rows >= 2 * _HEAD else 0  # of few rows M would be singular
            head = np.sort(np.argsort(by_feature)[len(by_feature) - most :])
            rows = sample.evenly(8 * _HEAD)
            M = _gram(sample.rows(rows, head).__getitem__, sample.weights(rows))
            sample.head = head, M, bound
        return sample.head

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


def _probabilities(X: Array, W: Array) -> Array:
    """Softmax of the rows of X Wᵀ."""
    return _softmax(X @ W.T.astype(X.dtype))


def _softmax(logits: Array) -> Array:
    """Softmax of rows, in place.

    The kernel of `softmax` is four times as fast, but may have to be compiled first.
    """
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def _positive(diagonal: Array) -> Array:
    """Return the diagonal with ones in place of what is not positive."""
    return np.where(diagonal > 0, diagonal, 1.0)


def _gram(take: Callable[[slice], Array], weight: Array) -> Array:
    """Σ weight·x xᵀ for weights ≥ 0; ``take`` gives the rows x of a slice."""
    first = take(slice(0, 1))
    n_rows, n = len(weight), first.shape[1]
    scale = np.sqrt(weight)[:, None].astype(first.dtype)

    def fill(rows: slice, out: Array) -> None:
        np.multiply(take(rows), scale[rows], out=out)

    if not n:
        return np.zeros((0, 0))
    M = gram(n_rows, n, first.dtype, fill)
    diagonal = np.einsum("ii->i", M)
    # The squares of features may overflow or underflow in float32 where the features do not.
    small = diagonal < 1e-30
    if not np.isfinite(diagonal).all() or (small.any() and take(slice(0, n_rows))[:, small].any()):
        M = gram(n_rows, n, np.float64, fill)
    return M
