"""Sums over sampled rows, of which preconditioners are made: second moments, and the curvature."""

from collections.abc import Callable, Iterator

import numpy as np

from fastsoftmax._evaluation.grams import gram
from fastsoftmax._optimize.coordinates import CentredProblem
from fastsoftmax._optimize.sample import Curvature
from fastsoftmax.reference import Array, softmax

MAX_FEATURES = 2048
# Features of a wide problem whose correlations are taken into account.
HEAD = 1024
# Rows that the curvature is taken from, for each feature and for each class. The means of classes
# are noise where there are fewer: at (20k, 128, 200), C = 100, half, once and twice as many took
# 52, 38 and 34 passes. At (50k, 100, 10) twice as many cost seven passes more than they saved.
_ROWS_A_FEATURE, _ROWS_A_CLASS = 50, 25
# Rows with much curvature are looked for among so many times the rows that are needed.
_DRAWN_FROM = 16
# The variance of a feature within a class is taken to be at least these shares of that within all
# classes, and of its second moment. A feature that is constant in the sampled rows need not be so
# in the others, and steps would be far too long.
_LEAST_OF_COMMON, _LEAST_OF_WHOLE = 0.1, 1e-3
_PROBABILITIES = 1 << 21  # that are in memory at a time


class Sums:
    """The sums for one problem; those that do not depend on λ are kept in its `Sample`."""

    def __init__(self, centred: CentredProblem) -> None:
        self.centred, self.problem, self.sample = centred, centred.problem, centred.sample
        self.n_classes, self.n_features = centred.problem.n_classes, centred.problem.n_features
        self.n_columns = self.n_features + centred.problem.fit_intercept
        # With fewer rows than features Σ x̃x̃ᵀ is singular: only λ makes it invertible, and rounding
        # errors grow by 1/λ.
        self.is_wide = self.n_columns > min(MAX_FEATURES, self.sample.n_rows // 2)

    def by_row(self, v: Array) -> Array:
        """Return a flat vector as a matrix (K, D + 1), the intercepts in its last column."""
        W, c = self.problem.split(v)
        return W if c is None else np.concatenate([W, c[:, None]], axis=1)

    def count(self, work: float, most: int, passes: int = 1) -> int:
        """How many rows cost as much as ``passes`` passes, at ``work`` multiply-adds a row."""
        a_pass = 4.0 * self.problem.n_rows * self.n_columns * self.n_classes
        rows = max(passes * a_pass / work, 8 * self.n_columns, 2000)
        return int(min(rows, most, self.sample.n_rows))

    def bound(self) -> Array:
        """½·Σ s·T·x̃x̃ᵀ / Σs over evenly drawn rows; it is made once."""
        sample, n = self.sample, self.n_columns
        if sample.bound is None:
            # At (60k, 784, 10), 8, 12, 23 and 70 rows a feature took 13, 12, 11 and 11 passes.
            rows = sample.evenly(self.count(n**2 / 2, 24 * (n + 100)))
            weight = self._shares(rows) / 2
            sample.bound = weighted_gram(lambda part: sample.rows(rows[part]), weight)
        bound: Array = sample.bound
        return bound

    def of_head(self) -> tuple[Array, Array, Array]:
        """Return the features with most curvature, their Σ s·T·x̃x̃ᵀ, and the bound's diagonal."""
        sample, inner, K = self.sample, self.problem, self.n_classes
        if sample.head is None:
            # At zero, p(1 - p) is (K - 1)/K² everywhere: ½·x² is what the bound has instead.
            curved = self._diagonal(inner.zeros())
            bound = curved * (K**2 / (2 * (K - 1)))
            by_feature = self.by_row(curved)[:, : self.n_features].sum(axis=0)
            most = HEAD if sample.n_rows >= 2 * HEAD else 0  # of few rows M would be singular
            head = np.sort(np.argsort(by_feature)[self.n_features - most :])
            rows = sample.evenly(8 * HEAD)
            M = weighted_gram(sample.rows(rows, head).__getitem__, sample.weights(rows))
            sample.head = head, M, bound
        return sample.head

    def _diagonal(self, v: Array) -> Array:
        """Return the diagonal of the Hessian at ``v`` without the penalty, from all rows."""
        return self.centred.hess_diag(v) - 2 * self.problem.l2 * self.problem.penalised

    def drawn(self, W: Array, count: int) -> tuple[Array, Array]:
        """Draw rows, and return their weights: the more a row curves at W, the likelier it is.

        Where classes separate, only the few rows near the boundaries curve the objective, and of
        evenly drawn rows hardly any is one of them: digits with noise (100k, 64, 10) took 197
        passes with even rows, and 117 with these, to 1e-4 above the lowest loss.
        """
        sample = self.sample
        rows = sample.evenly(min(_DRAWN_FROM * count, sample.n_rows))
        if len(rows) == count or self._is_even(rows[:: -(-len(rows) // 1024)], W):
            rows = sample.evenly(count)
            return rows, self._shares(rows)
        weight = self._shares(rows)
        importance = weight * self._curvatures(rows, W)
        importance = 0.9 * importance / max(importance.sum(), 1e-300) + 0.1 * weight
        edges = np.cumsum(importance)
        places = (np.arange(count) + 0.5) / count * edges[-1]
        taken = np.minimum(np.searchsorted(edges, places), len(rows) - 1)
        return rows[taken], weight[taken] / importance[taken] * (edges[-1] / count)

    def _shares(self, rows: Array) -> Array:
        """Weights of some rows, as shares of their sum."""
        weight = self.sample.weights(rows)
        return np.asarray(weight / max(weight.sum(), 1e-300))

    def _is_even(self, rows: Array, W: Array) -> bool:
        """Whether a good part of the rows has the curvature, so that drawing would gain nothing."""
        curved = self._curvatures(rows, W)
        return bool(curved.sum() ** 2 > len(curved) * np.square(curved).sum() / 4)

    def _curvatures(self, rows: Array, W: Array) -> Array:
        """1 - Σ_k p_k² of some rows."""
        out = np.empty(len(rows))
        for part in self._parts(len(rows)):
            P = probabilities(self.sample.rows(rows[part]), W)
            out[part] = 1 - np.einsum("ik,ik->i", P, P)
        return np.maximum(out, 0)

    def _parts(self, n_rows: int) -> Iterator[slice]:
        """Slices of rows whose probabilities fit in memory together."""
        step = min(max(_PROBABILITIES // self.n_classes, 16), 1024)
        return (slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step))

    def curvature(self, v: Array) -> Curvature:
        """Take the curvature at ``v``."""
        return self._of_some(v) if self.is_wide else self._of_all(v)

    def _of_all(self, v: Array) -> Curvature:
        """Take the curvature at ``v`` with the correlations of all features.

        Features are scaled to second moments of 1, so that float32 can hold their squares.
        """
        sample, n, K = self.sample, self.n_features, self.n_classes
        square = 2 * np.einsum("ii->i", self.bound())[:n]
        scale = 1 / np.sqrt(positive(square))
        W = self.by_row(v)
        most = max(_ROWS_A_FEATURE * (n + 100), _ROWS_A_CLASS * K)
        every, weight = self.drawn(W, self.count(n**2 / 2 + 3 * n * K, most))
        sums = np.zeros((K, 2 * n + 1))

        def fill(rows: slice, out: Array) -> None:
            of_rows, shares = every[rows], weight[rows, None]
            for part in self._parts(len(of_rows)):
                X = sample.rows(of_rows[part])
                moments = np.ones((len(X), 2 * n + 1), np.float32)
                x = moments[:, :n]
                np.multiply(X[:, :n], scale.astype(X.dtype), out=x, casting="same_kind")
                np.square(x, out=moments[:, n : 2 * n])
                P = probabilities(X, W)
                P -= P * P
                P *= shares[part].astype(P.dtype)
                q = P.astype(np.float32, copy=False)
                np.add(sums, q.T @ moments, out=sums)
                curved = np.maximum(q.sum(axis=1, keepdims=True), 0)
                np.multiply(x, np.sqrt(curved), out=out[part])

        covariance = gram(len(every), n, np.float32, fill)
        total = np.maximum(sums[:, 2 * n], 0)
        mean = sums[:, :n] / positive(total)[:, None]
        covariance -= (mean * total[:, None]).T @ mean
        diagonal, whole = np.einsum("ii->i", covariance), max(total.sum(), 1e-300)
        diagonal[:] = np.maximum(diagonal, _LEAST_OF_WHOLE * whole * (square > 0))
        variance = sums[:, n : 2 * n] / positive(total)[:, None] - mean**2
        variance = np.maximum(variance, _LEAST_OF_COMMON / whole * diagonal)
        return Curvature(total, mean, variance, covariance, scale, slice(None))

    def _of_some(self, v: Array) -> Curvature:
        """Take the curvature at ``v`` with the correlations of some features.

        Squares are summed over all rows, as a feature may be missing in a sample. With means and
        correlations of the bound, (50k, 50k, 20) took 47 passes instead of 25.
        """
        sample, n, K = self.sample, self.n_features, self.n_classes
        W, head = self.by_row(v), self.of_head()[0]
        shift = -W[:, :n] @ sample.mean + (W[:, n] if self.problem.fit_intercept else 0)
        every = sample.evenly(8 * HEAD)
        weight = self._shares(every)
        total, sums, of_rows = np.zeros(K), np.zeros((n, K)), np.zeros(len(every))
        for part in self._parts(len(every)):
            X = sample.stored(every[part])
            P = softmax(X @ W[:, :n].T.astype(sample.dtype) + shift, axis=1)
            q = P * (1 - P) * weight[part, None]
            total += q.sum(axis=0)
            sums += X.T @ q.astype(sample.dtype)
            of_rows[part] = q.sum(axis=1)
        mean = np.where(total > 0, sums / positive(total) - sample.mean[:, None], 0).T
        columns = slice(len(head))
        second = weighted_gram(lambda part: sample.rows(every[part], head)[:, columns], of_rows)
        covariance = second - (mean[:, head] * total[:, None]).T @ mean[:, head]
        square = self.by_row(self._diagonal(v))
        if self.problem.fit_intercept:
            total = np.maximum(square[:, n], 0)
        moment = square[:, :n] / positive(total)[:, None]
        variance = np.maximum(moment - mean**2, _LEAST_OF_COMMON * moment)
        return Curvature(total, mean, variance, covariance, np.ones(n), head)


def probabilities(X: Array, W: Array) -> Array:
    """Softmax of the rows of X Wᵀ.

    The kernel of `fastsoftmax.softmax` is faster than NumPy, but may have to be compiled first.
    """
    return softmax(X @ W.T.astype(X.dtype), axis=1)


def positive(diagonal: Array) -> Array:
    """Return the diagonal with ones in place of what is not positive."""
    return np.where(diagonal > 0, diagonal, 1.0)


def weighted_gram(take: Callable[[slice], Array], weight: Array) -> Array:
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
