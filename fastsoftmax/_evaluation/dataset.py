"""The rows behind a problem: what every kind of data set can do, and rows in memory."""

import contextlib
import functools
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from fastsoftmax._evaluation.backend import accumulator
from fastsoftmax._evaluation.csr import CSR, is_sparse
from fastsoftmax._evaluation.targets import Targets
from fastsoftmax._kernels.modes import DIAGONAL, PRODUCT
from fastsoftmax.reference import Array

Chunks = Generator["Chunk", None, None]
# Fewer rows are not worth another call of the kernel: it takes about as long as they do.
_FEW_ROWS = 4096


class Chunk(NamedTuple):
    """Consecutive rows and their targets."""

    X: Array | CSR
    targets: Targets

    def __len__(self) -> int:
        return len(self.X)

    def part(self, start: int, stop: int) -> Self:
        """View the rows from ``start`` to before ``stop``."""
        X = self.X.part(start, stop) if isinstance(self.X, CSR) else self.X[start:stop]
        return type(self)(X, self.targets.part(start, stop))

    def joined(self, others: list[Self]) -> Self:
        """Copy these rows and, after them, those of ``others``."""
        rest: list[Any] = [chunk.X for chunk in others]
        X = self.X.joined(rest) if isinstance(self.X, CSR) else np.concatenate([self.X, *rest])
        return type(self)(X, self.targets.joined([chunk.targets for chunk in others]))


class Dataset:
    """Rows of features with targets; ``dtype`` is that of X, ``total`` what a mean divides by."""

    n_rows: int
    n_features: int
    dtype: np.dtype[Any]
    is_sparse: bool
    total: float

    def chunks(self, block_rows: int, *, curvatures: bool = False) -> Chunks:
        """Give all rows in order; all chunks but the last have a multiple of ``block_rows`` rows.

        A chunk is valid until the next one is asked for. With ``curvatures`` its targets hold the
        row scales of the Hessian. An iterator that is left early must be closed, since a thread may
        be reading ahead.
        """
        raise NotImplementedError

    def sum(
        self, W: Array, b: Array | None, center: Array | None = None, *, mode: int, **how: Any
    ) -> Any:
        """Sum what ``mode`` names over all rows, ``center`` subtracted; see `accumulator`.

        The sums have methods ``loss`` and ``finish``, for HESSIAN ``hessian``.
        """
        sums = accumulator(W, b, center, sparse=self.is_sparse, mode=mode, **how)
        chunks = self.chunks(sums.block_rows, curvatures=mode >= PRODUCT)
        with contextlib.closing(chunks):
            for X, targets in chunks:
                if mode == DIAGONAL and isinstance(X, CSR):
                    X = X.canonical()  # entries that add up must do so before they are squared
                sums.add(X, targets)
        return sums

    def rows(self, chosen: Array) -> tuple[Any, Array]:
        """Copy some rows, in ascending order, and their weights s·T, in one pass over all."""
        matrices: list[Any] = []
        weights: list[Array] = []
        # Dense rows are written in place: chunks and their stack together would take twice the
        # memory.
        dense = np.empty((0 if self.is_sparse else len(chosen), self.n_features), self.dtype)
        first = 0
        with contextlib.closing(self.chunks(1, curvatures=True)) as chunks:
            for X, targets in chunks:
                a, b = np.searchsorted(chosen, (first, first + len(X)))
                rows = chosen[a:b] - first
                if isinstance(X, CSR):
                    matrices.append(X.matrix()[rows])
                else:
                    dense[a:b] = X[rows]
                weights.append(targets.scales(len(X))[rows])
                first += len(X)
        if not weights:  # no rows, as in a share of empty partitions
            weights = [np.empty(0, self.dtype)]
            matrices = [CSR.empty(self.n_features, self.dtype).matrix()] if self.is_sparse else []
        return stack(matrices) if self.is_sparse else dense, np.concatenate(weights)

    def sample(self, n_rows: int) -> tuple[Any, Array | None]:
        """Return about ``n_rows`` evenly spaced rows and their weights s·T, None for ones.

        Which rows these are does not depend on the chunks. Sparse rows are SciPy's CSR. Of rows in
        memory all are returned, by reference.
        """
        raise NotImplementedError


class InMemory(Dataset):
    """Rows that are arrays: one chunk."""

    def __init__(self, X: Array | CSR, targets: Targets) -> None:
        self.X, self.targets = X, targets
        self.n_rows, self.n_features = X.shape
        self.dtype, self.is_sparse, self.total = X.dtype, isinstance(X, CSR), targets.total

    @functools.cached_property
    def curvatures(self) -> Targets:
        """Targets that hold the row scales of the Hessian."""
        return self.targets.curvatures(self.n_rows)

    def chunks(self, block_rows: int, *, curvatures: bool = False) -> Chunks:
        """See `Dataset.chunks`."""
        yield Chunk(self.X, self.curvatures if curvatures else self.targets)

    def sample(self, n_rows: int) -> tuple[Any, Array | None]:
        """See `Dataset.sample`."""
        return self.X.matrix() if isinstance(self.X, CSR) else self.X, self.curvatures.weight


class Fold(InMemory):
    """Rows in memory, of which those with a weight of zero are left out of all sums.

    Nothing is copied. The kernels give such rows a weight of zero, or never see them where many of
    them follow each other, as in folds that are not shuffled.
    """

    def __init__(self, X: Array | CSR, targets: Targets) -> None:
        super().__init__(X, targets)
        kept = targets.scales(self.n_rows) > 0
        edges = np.flatnonzero(np.diff(kept, prepend=False, append=False))
        starts, stops = edges.reshape(-1, 2).T
        far = starts[1:] - stops[:-1] >= _FEW_ROWS
        self.ranges = list(
            zip(starts[np.append(True, far)], stops[np.append(far, True)], strict=True)
        )

    def chunks(self, block_rows: int, *, curvatures: bool = False) -> Chunks:
        """See `Dataset.chunks`; where chunks end follows from the weights alone."""
        for whole in super().chunks(block_rows, curvatures=curvatures):
            for start, stop in self.ranges:
                yield whole.part(start, stop)


def evenly(n: int, n_rows: int) -> Array:
    """Up to ``n`` row numbers, spread evenly over all."""
    n = min(n, n_rows)
    return np.arange(n) * n_rows // n


def stack(matrices: Sequence[Any]) -> Any:
    """Put arrays, or SciPy's CSR matrices, on top of each other."""
    if is_sparse(matrices[0]):
        from scipy.sparse import vstack

        return vstack(matrices, format="csr")
    return np.concatenate(matrices)
