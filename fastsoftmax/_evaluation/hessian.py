"""The whole Hessian, summed over rows that come in one chunk or many.

With a = s·T, probabilities p and x̃ = (x, 1), it is made of blocks, one for each pair of classes:

    H_kl = -Σ a p_k p_l x̃x̃ᵀ for k ≠ l,    H_kk = Σ a p_k (1 - p_k) x̃x̃ᵀ = -Σ_{l ≠ k} H_kl

So only blocks of two different classes are summed over rows. The sums are Σ (p pᵀ) ⊗ (a x̃x̃ᵀ), which
is symmetric in the two classes and in the two features: a quarter of the matrix has everything in
it. The kernel wants long rows: the pairs that it goes through are those of the shorter factor, and
vectors run along the longer one.
"""

import numpy as np

from fastsoftmax._evaluation import plans
from fastsoftmax._evaluation.accumulators import DenseAccumulator
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.memory import aligned
from fastsoftmax._evaluation.targets import Targets, no_targets
from fastsoftmax._evaluation.threads import n_threads, run
from fastsoftmax._kernels.algebra.hessian import DEPTH, add_row_products, write_hessian
from fastsoftmax._kernels.modes import SOFTMAX
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
        self.scores = DenseAccumulator(W, bias, mode=SOFTMAX)
        n_classes, n_features = W.shape
        n_factors = n_features + (bias is not None)  # the length of x̃
        self.by_class = n_classes <= n_factors
        self.n_outer, self.n = sorted((n_classes, n_factors))
        self.pairs = np.stack(np.triu_indices(self.n_outer, 1 if self.by_class else 0), axis=1)
        self.lanes = VECTOR_BYTES // dtype.itemsize
        self.n_strips = -(-self.n // self.lanes)
        # The upper half of a block in panels of ``whole`` columns, each down to the diagonal.
        self.whole, padded = WIDTH * self.lanes, self.n_strips * self.lanes
        panels = range(0, self.n, self.whole)
        half = sum(
            min(first + self.whole, self.n) * min(self.whole, padded - first) for first in panels
        )
        n_slots = 1 << max((_TASKS // (len(self.pairs) * len(panels))).bit_length() - 1, 0)
        self.totals = np.zeros((n_slots, len(self.pairs) * half))
        width = n_features + n_classes + 2 * self.n_outer + padded
        step = n_slots * DEPTH
        self.block_rows = max(_BLOCK_BYTES // (width * dtype.itemsize) // step, 1) * step

    def add(self, X: Array | CSR, targets: Targets) -> None:
        """Add a chunk of rows, the weights of whose targets are s·T."""
        for start in range(0, len(X), self.block_rows):
            stop = min(start + self.block_rows, len(X))
            part = X.part(start, stop) if isinstance(X, CSR) else X[start:stop]
            self._add_block(part, None if targets.weight is None else targets.weight[start:stop])

    def _add_block(self, X: Array | CSR, weight: Array | None) -> None:
        """Add a block of rows: convert, score, lay out, multiply."""
        x = np.empty((len(X), self.W.shape[1]), self.W.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(X, CSR):
                X.write(x)
            else:
                x[...] = X
        p = np.empty((len(X), len(self.W)), x.dtype)
        self.scores.add(x, no_targets(x.dtype), None, p)
        if weight is not None:
            p[weight == 0] = 0  # such a row adds nothing, whatever its logits are
        u, strips = self._factors(x, p)
        operands = u if weight is None else u * weight, u, strips
        work = len(x) * self.totals.shape[1]
        workers = plans.n_product_workers(work, n_threads())
        size = HEIGHT * self.lanes + (HEIGHT + DEPTH) * self.whole
        scratch = aligned(workers, size, x.dtype)
        scratch[:, : HEIGHT * self.lanes] = 0
        run(
            add_row_products, self.n, self.pairs, operands, self.totals, scratch,
            n_workers=workers, short=work < plans.SHORT_WORK,
        )  # fmt: skip

    def _factors(self, x: Array, p: Array) -> tuple[Array, Array]:
        """Lay out the shorter factor by its elements, and the longer one in strips."""
        n_rows, n_features = x.shape
        u = np.empty((self.n_outer, n_rows), x.dtype)
        strips = aligned(self.n_strips * n_rows, self.lanes, x.dtype)
        strips = strips.reshape(self.n_strips, n_rows, self.lanes)
        strips[-1] = 0
        outer, inner = (p, x) if self.by_class else (x, p)
        u[: outer.shape[1]] = outer.T
        for i, first in enumerate(range(0, inner.shape[1], self.lanes)):
            columns = inner[:, first : first + self.lanes]
            strips[i, :, : columns.shape[1]] = columns
        if self.bias is not None and self.by_class:
            strips[n_features // self.lanes, :, n_features % self.lanes] = 1
        elif self.bias is not None:
            u[n_features] = 1
        return u, strips

    def hessian(self, total: float) -> Array:
        """Return the Hessian over ``total`` (size, size), without the penalty; sums are used up."""
        size = self.W.size + (0 if self.bias is None else len(self.W))
        sums = self.totals[0]
        for slot in self.totals[1:]:
            sums += slot
        H = np.zeros((size, size))
        run(
            write_hessian, self.n_outer, self.by_class, self.whole, self.n,
            sums.reshape(len(self.pairs), -1), 1 / total, self.W.shape, H,
            n_workers=plans.n_product_workers(H.size, n_threads()),
        )  # fmt: skip
        return H
