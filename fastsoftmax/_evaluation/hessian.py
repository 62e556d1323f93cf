"""The whole Hessian, summed over rows that come in one chunk or many.

With a = s·T, probabilities p and x̃ = (x, 1), it is made of blocks, one for each pair of classes:

    H_kl = -Σ a p_k p_l x̃x̃ᵀ for k ≠ l,    H_kk = Σ a p_k (1 - p_k) x̃x̃ᵀ = -Σ_{l ≠ k} H_kl

So only blocks of two different classes are summed over rows. The sums are Σ (p pᵀ) ⊗ (a x̃x̃ᵀ), which
is symmetric in the two classes and in the two features: a quarter of the matrix has everything in
it. The kernel wants long rows: the pairs that it goes through are those of the shorter factor, and
vectors run along the longer one.
"""

from typing import Any

import numpy as np

from fastsoftmax._evaluation import plans
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.memory import aligned
from fastsoftmax._evaluation.scores import SOFTMAX, score
from fastsoftmax._evaluation.targets import Targets
from fastsoftmax._evaluation.threads import n_threads, run
from fastsoftmax._kernels.algebra.kron_grams import DEPTH, add_kron_grams
from fastsoftmax._kernels.vector.emit import HEIGHT, VECTOR_BYTES, WIDTH
from fastsoftmax.reference import Array

# Rows whose features and probabilities take so many bytes go through the steps together.
_BLOCK_BYTES = 2 << 20
# Tasks that a block of rows has at least: where panels are fewer, its rows are divided as well.
_TASKS = 32


class HessianAccumulator:
    """Sums of which `hessian` is made; the bits do not depend on the chunks.

    All chunks but the last have a multiple of ``block_rows`` rows.
    """

    def __init__(self, W: Array, bias: Array | None) -> None:
        self.W, self.bias, dtype = W, bias, W.dtype
        n_classes, n_features = W.shape
        n_factors = n_features + (bias is not None)  # the length of x̃
        self.by_class = n_classes <= n_factors
        n_outer, self.n = sorted((n_classes, n_factors))
        self.pairs = np.stack(np.triu_indices(n_outer, 1 if self.by_class else 0), axis=1)
        self.lanes = VECTOR_BYTES // dtype.itemsize
        self.n_strips = -(-self.n // self.lanes)
        self.panel_sizes = [rows * columns for _, rows, columns in self._panels()]
        n_tasks = len(self.pairs) * len(self.panel_sizes)
        n_slots = 1 << max((_TASKS // n_tasks).bit_length() - 1, 0)
        self.totals = np.zeros((n_slots, len(self.pairs) * sum(self.panel_sizes)))
        width = n_features + n_classes + 2 * n_outer + self.n_strips * self.lanes
        step = n_slots * DEPTH
        self.block_rows = max(_BLOCK_BYTES // (width * dtype.itemsize) // step, 1) * step
        sizes = n_features, n_classes, n_outer, n_outer, self.n_strips * self.lanes
        self.buffers = [aligned(1, size * self.block_rows, dtype)[0] for size in sizes]

    def _panels(self) -> Any:
        """First column, rows and columns of the panels in which the kernel leaves a block."""
        whole, padded = WIDTH * self.lanes, self.n_strips * self.lanes
        for first in range(0, self.n, whole):
            columns = min(whole, padded - first)
            yield first, min(first + columns, self.n), columns

    def add(self, X: Array | CSR, targets: Targets) -> None:
        """Add a chunk of rows, the weights of whose targets are s·T."""
        for start in range(0, len(X), self.block_rows):
            stop = min(start + self.block_rows, len(X))
            part = X.part(start, stop) if isinstance(X, CSR) else X[start:stop]
            self._add_block(part, None if targets.weight is None else targets.weight[start:stop])

    def _add_block(self, X: Array | CSR, weight: Array | None) -> None:
        """Add a block of rows: convert, score, lay out, multiply."""
        n_rows, (n_classes, n_features), lanes = len(X), self.W.shape, self.lanes
        x, p, u, weighted, strips = (
            buffer[: n_rows * length].reshape(shape)
            for buffer, length, shape in zip(
                self.buffers,
                (len(b) // self.block_rows for b in self.buffers),
                ((n_rows, -1), (n_rows, -1), (-1, n_rows), (-1, n_rows), (-1, n_rows, lanes)),
                strict=True,
            )
        )
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(X, CSR):
                X.write(x)
            else:
                x[...] = X
        score(x, self.W, self.bias, SOFTMAX, p)
        if weight is not None:
            p[weight == 0] = 0  # such a row adds nothing, whatever its logits are
        strips[-1] = 0
        outer, inner = (p, x) if self.by_class else (x, p)
        u[: outer.shape[1]] = outer.T
        for first in range(0, inner.shape[1], lanes):
            columns = inner[:, first : first + lanes]
            strips[first // lanes, :, : columns.shape[1]] = columns
        if self.bias is not None and self.by_class:
            strips[n_features // lanes, :, n_features % lanes] = 1
        elif self.bias is not None:
            u[n_features] = 1
        np.multiply(u, 1 if weight is None else weight, out=weighted)
        work = n_rows * self.totals.shape[1]
        workers = plans.n_product_workers(work, n_threads())
        scratch = np.zeros((workers, (HEIGHT + DEPTH) * WIDTH * lanes + HEIGHT), self.W.dtype)
        operands = weighted, u, strips
        run(add_kron_grams, self.n, self.pairs, operands, self.totals, scratch, n_workers=workers)

    def hessian(self, total: float) -> Array:
        """Return the Hessian over ``total`` (size, size), without the penalty; sums are used up."""
        size = self.W.size + (0 if self.bias is None else len(self.W))
        sums = self.totals[0]
        for slot in self.totals[1:]:
            sums += slot
        sums *= -1 / total
        H = np.zeros((size, size))
        for (a, b), block in zip(self.pairs, sums.reshape(len(self.pairs), -1), strict=True):
            square = self._square(block)
            if not self.by_class:  # a pair of features: the block has all pairs of classes
                np.fill_diagonal(square, 0)
                np.fill_diagonal(square, -square.sum(axis=1))
            self._add_square(H, a, b, square)
            if a != b:
                self._add_square(H, b, a, square)
            if self.by_class:
                square *= -1
                self._add_square(H, a, a, square)
                self._add_square(H, b, b, square)
        return H

    def _square(self, block: Array) -> Array:
        """Make a symmetric matrix of the panels of its upper half."""
        square = np.empty((self.n, self.n))
        parts = np.split(block, np.cumsum(self.panel_sizes)[:-1])
        for (first, stop, columns), part in zip(self._panels(), parts, strict=True):
            panel = part.reshape(stop, columns)[:, : stop - first]
            square[:first, first:stop] = panel[:first]
            square[first:stop, :first] = panel[:first].T
            upper = np.triu(panel[first:])
            square[first:stop, first:stop] = upper + np.triu(upper, 1).T
        return square

    def _add_square(self, H: Array, a: int, b: int, square: Array) -> None:
        """Add the square of a pair where it belongs in the flat order: W by rows, then b."""
        for rows, i in self._places(a):
            for columns, j in self._places(b):
                H[rows, columns] += square[i, j]

    def _places(self, a: int) -> list[tuple[slice, slice]]:
        """Where in the flat order the elements of x̃ for class ``a``, or of feature ``a``, are."""
        n_classes, n_features = self.W.shape
        n, every = self.W.size, slice(None)
        if not self.by_class:
            return [(slice(a, n, n_features) if a < n_features else slice(n, None), every)]
        weights = slice(a * n_features, (a + 1) * n_features), slice(n_features)
        bias = slice(n + a, n + a + 1), slice(n_features, None)
        return [weights] if self.bias is None else [weights, bias]
