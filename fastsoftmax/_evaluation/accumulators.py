"""Run a plan: sums of losses and gradients over rows, dense or sparse, by the kernels."""

from typing import Any, NamedTuple

import numpy as np

from fastsoftmax._evaluation import plans
from fastsoftmax._evaluation.csr import CSR
from fastsoftmax._evaluation.memory import address, aligned
from fastsoftmax._evaluation.targets import Targets, penalty
from fastsoftmax._evaluation.terms import make_terms
from fastsoftmax._evaluation.threads import n_threads, run
from fastsoftmax._kernels.linear.dense import COPY_ABOVE_CLASSES, DenseProblem
from fastsoftmax._kernels.linear.finish import Finish, finish_slabs
from fastsoftmax._kernels.linear.panels import pack_panels
from fastsoftmax._kernels.linear.shared import Part, add_shared, finish_shared, run_shared_forward
from fastsoftmax._kernels.linear.slots import run_slots
from fastsoftmax._kernels.linear.sparse import SparseProblem, assign_blocks
from fastsoftmax._kernels.modes import GRADIENT, PRODUCT
from fastsoftmax._kernels.vector.simd import BFLOAT16, FLOAT16
from fastsoftmax.reference import Array

# Rows in a layout that the kernel does not read are converted this many bytes at a time.
_CONVERTED_BYTES = 16 << 20
# So many elements of W are packed, and of slabs added up, before another thread has woken up.
_SERIAL_ELEMENTS = 1 << 18
# What stands for the features' dtypes that Numba does not know.
_STORED = {"bool": np.dtype(np.uint8), "float16": FLOAT16, "bfloat16": BFLOAT16}


class _Shared(NamedTuple):
    """Rows that threads share, of which the backward product is still to be made."""

    problem: DenseProblem
    part: Part
    room: Array
    scratch: Array


class Accumulator:
    """Sums, over rows that come in one chunk or many, of what ``mode`` names.

    The bits do not depend on the chunks if every chunk but the last has a multiple of
    ``block_rows`` rows. ``direction`` (V, c) is what the Hessian is multiplied with.
    """

    def __init__(
        self,
        plan: plans.Plan,
        W: Array,
        bias: Array | None,
        *,
        mode: int = GRADIENT,
        direction: tuple[Array, Array | None] | None = None,
    ) -> None:
        self.plan, self.W, self.mode = plan, W, mode
        n_classes = len(W)
        self.bias = np.zeros(n_classes, W.dtype) if bias is None else bias
        # The kernels compute the logits of the model and, behind them, those of the direction.
        self.rows, self.row_biases = W, self.bias
        if direction is not None:
            V, c = direction
            self.rows = np.concatenate([W, V])
            self.row_biases = np.concatenate(
                [self.bias, np.zeros_like(self.bias) if c is None else c]
            )
        self.slabs = aligned(0, 1 if mode < GRADIENT else plan.slab_size, W.dtype)
        self.losses = np.empty(plan.n_slots)
        self.blocks = self.n_rows = 0

    @property
    def block_rows(self) -> int:
        """Rows of which every chunk but the last must be a multiple, for the same bits."""
        return self.plan.block_rows

    def _run(self, problem: Any, targets: Targets, work: int, start: int, losses: Any) -> None:
        """Run the kernel on the rows of a chunk from ``start`` on, which ``problem`` describes."""
        plan, dtype, n_rows, threads = self.plan, self.W.dtype, problem.n_rows, n_threads()
        self._begin(n_rows)
        self._provide_slabs()
        job = problem, make_terms(targets, dtype, start, losses)
        workers = plans.n_workers(plan, n_rows, work, dtype, threads)
        scratch = aligned(workers, plan.scratch_size, dtype)
        arrays = (self.slabs, self.losses, scratch)
        run(run_slots, job, arrays, n_workers=workers, short=work < plans.SHORT_WORK)

    def _begin(self, n_rows: int) -> None:
        """Count the rows of a chunk."""
        self.n_rows += n_rows
        self.blocks += -(-n_rows // self.plan.block_rows)

    def _provide_slabs(self) -> None:
        """See to slabs for the slots that are used, and not for more: fresh memory costs time."""
        n, before = self.slots_used, self.slabs
        if n > len(before):
            self.slabs = aligned(n, before.shape[1], before.dtype)
            self.slabs[: len(before)] = before

    @property
    def slots_used(self) -> int:
        """Slots to which rows have come so far; these are the first ones."""
        return min(plans.n_runs(self.plan, self.blocks), self.plan.n_slots)

    def _packed(self) -> Array:
        """Return the rows of W as `pack_panels` lays them out.

        For the gradient in X whole vectors are read, so that a tile more must be there.
        """
        panels = np.empty(self.rows.size + self.plan.tile, self.W.dtype)
        panels[self.rows.size :] = 0
        workers = n_threads() if self.rows.size > _SERIAL_ELEMENTS else 1
        run(pack_panels, self.rows, panels, n_workers=workers)
        return panels

    def loss(self, total: float, l2: float) -> float:
        """Σ losses / total + l2·‖W‖²."""
        return float(self.losses[: self.slots_used].sum()) / total + penalty(self.W, l2)

    def finish(self, total: float, l2: float) -> tuple[float, Array, Array]:
        """Return the loss, its gradient in W (K, D) and in b (K,); the sums are used up."""
        gradient, bias_gradient = np.empty_like(self.W), np.empty_like(self.bias)
        scalar = self.W.dtype.type
        if self.blocks == 0:
            return self.loss(total, l2), scalar(2 * l2) * self.W, np.zeros_like(self.bias)
        job = Finish(
            self.plan.panel, self.plan.padded_features, *self.plan.parts,
            denominator=scalar(total), twice_l2=scalar(2 * l2),
        )  # fmt: skip
        self._finish_slabs(job, (self.W, gradient, bias_gradient))
        return self.loss(total, l2), gradient, bias_gradient

    def _finish_slabs(self, job: Finish, result: tuple[Array, Array, Array]) -> None:
        """Make the ``result``, W and the gradients in W and in the biases, of all slabs."""
        used = self.slots_used
        workers = n_threads() if self.W.size * used > _SERIAL_ELEMENTS else 1
        run(finish_slabs, job, (self.slabs[:used], *result), n_workers=workers)


class DenseAccumulator(Accumulator):
    """Sums over rows of dense features, ``center`` (D,) subtracted from each."""

    def __init__(
        self, W: Array, bias: Array | None, center: Array | None = None, **options: Any
    ) -> None:
        n_classes, n_features = W.shape
        super().__init__(plans.make_plan(n_features, n_classes, W.dtype), W, bias, **options)
        self.center: Array | None = None
        if center is not None and center.any():
            self.center = np.zeros(self.plan.padded_features, W.dtype)
            self.center[:n_features] = center
        self.panels: Array | None = None
        self.shared: _Shared | None = None

    def add(
        self, X: Array, targets: Targets, row_losses: Array | None = None, out: Array | None = None
    ) -> None:
        """Add a chunk of rows; fill ``row_losses`` (N,), and ``out`` as the mode says, if given.

        For GRADIENT it takes the gradient in X, (N, D). For a mode that scores rows it takes their
        scores, (N, K) or (N,), and the targets mean nothing.
        """
        if _readable(X, self.W.dtype):
            self._add_chunk(X, 0, targets, row_losses, out)
            return
        bytes_a_row = X.shape[1] * self.W.itemsize
        step = max(_CONVERTED_BYTES // bytes_a_row // self.plan.block_rows, 1)
        step *= self.plan.block_rows
        for start in range(0, len(X), step):
            with np.errstate(over="ignore", invalid="ignore"):
                chunk = np.ascontiguousarray(X[start : start + step], self.W.dtype)
            self._add_chunk(chunk, start, targets, row_losses, out)

    def _add_chunk(
        self, X: Array, start: int, targets: Targets, losses: Array | None, out: Array | None
    ) -> None:
        """Add rows that the kernel reads as they lie, the targets of which begin at ``start``."""
        n_rows, n_features = X.shape
        if n_rows == 0:
            return
        if self.panels is None and plans.packs_weights(self.W, n_rows, out is not None):
            self.panels = self._packed()
        by_row, stride = _layout(X)
        same = X.dtype == self.W.dtype
        plain = by_row and same and stride >= n_features and self.center is None
        problem = DenseProblem(
            address=address(X),
            source=np.empty(0, X.dtype if same else _STORED.get(X.dtype.name, X.dtype)),
            by_row=by_row,
            stride=stride,
            plain=plain,
            n_rows=n_rows,
            first_block=self.blocks,
            n_features=n_features,
            n_classes=len(self.W),
            n_logits=len(self.rows),
            block_rows=self.plan.block_rows,
            run_blocks=self.plan.run_blocks,
            capacity=self.plan.block_rows,
            weights=address(self.rows if self.panels is None else self.panels),
            packed=self.panels is not None,
            bias=address(self.row_biases),
            center=address(self.center),
            mode=self.mode,
            out=address(out, start),
            denominator=float(targets.total),
        )
        threads = n_threads()
        # For a product with the Hessian the logits of neighbouring tiles overlap.
        if self.mode != PRODUCT and plans.runs_are_few(self.plan, n_rows, threads):
            self._share(problem, targets, threads, start, losses)
        else:
            self._add_shared()
            self._run(problem, targets, plans.dense_work(self.plan, n_rows), start, losses)

    def _share(
        self, problem: DenseProblem, targets: Targets, threads: int, start: int, losses: Any
    ) -> None:
        """Run the kernels in which threads share each run of blocks; see `_run`."""
        plan, dtype, before = self.plan, self.W.dtype, self.blocks * self.plan.block_rows
        self._begin(problem.n_rows)
        rows, run_rows = plans.shared_rows(plan, problem.n_rows, dtype), plans.run_rows(plan)
        problem = problem._replace(capacity=rows)
        job = problem, make_terms(targets, dtype, start, losses)
        workers = plans.n_sharing_workers(plan, rows, threads)
        room = aligned(1, plans.room_size(plan, rows), dtype)[0]
        scratch = aligned(workers, plans.workspace_size(plan.parts[0], plan.tile), dtype)
        arrays = (self.losses, room, scratch, np.empty(-(-rows // plan.tile)))
        first = 0
        while first < problem.n_rows:
            self._add_shared()
            slot, of_run = divmod(before + first, run_rows)
            n = min(problem.n_rows - first, run_rows - of_run, rows)
            fresh = slot < plan.n_slots and of_run == 0
            part = Part(first, n, slot % plan.n_slots, fresh)
            run(run_shared_forward, job, part, arrays, n_workers=workers)
            if self.mode >= GRADIENT:
                self.shared = _Shared(problem, part, room, scratch)
            first += n
        if problem.n_classes <= COPY_ABOVE_CLASSES:  # X is read again, and may change
            self._add_shared()

    def _add_shared(self) -> None:
        """Add to a slab what is left to do of shared rows."""
        if self.shared is not None:
            problem, part, room, scratch = self.shared
            self.shared = None
            self._provide_slabs()
            arrays = (self.slabs[part.slot], room, scratch)
            run(add_shared, (problem, part), arrays, n_workers=len(scratch))

    def _finish_slabs(self, job: Finish, result: tuple[Array, Array, Array]) -> None:
        """See `Accumulator._finish_slabs`."""
        if self.shared is None or self.shared.part.rows < self.n_rows:
            self._add_shared()
            super()._finish_slabs(job, result)
            return
        problem, part, room, scratch = self.shared
        size = plans.group_size(self.plan, part.rows, self.W.dtype)
        sums = aligned(len(scratch), size, self.W.dtype)
        run(finish_shared, (problem, part, job), (room, sums), result, n_workers=len(scratch))


class SparseAccumulator(Accumulator):
    """Sums over rows of a CSR matrix."""

    def __init__(self, W: Array, bias: Array | None, **options: Any) -> None:
        n_classes, n_features = W.shape
        n_logits = n_classes * (1 if options.get("direction") is None else 2)
        plan = plans.make_sparse_plan(n_features, n_classes, n_logits, W.dtype)
        super().__init__(plan, W, bias, **options)
        self.logit_parts = plans.parts(n_logits, W.dtype)
        self.transposed = _by_features(self.rows, *self.logit_parts)
        # Whole vectors of biases are read.
        self.row_biases = np.concatenate([self.row_biases, np.zeros(plan.tile, W.dtype)])
        self.loads = np.zeros(plan.n_slots, np.int64)

    def add(
        self, X: CSR, targets: Targets, row_losses: Array | None = None, out: Array | None = None
    ) -> None:
        """Add a chunk of rows; see `DenseAccumulator.add`."""
        n_rows = len(X)
        if n_rows == 0:
            return
        slots = np.empty(-(-n_rows // self.plan.block_rows), np.int64)
        assign_blocks(X.indptr, self.plan.block_rows, self.loads, slots)
        panels = None if out is None or self.mode != GRADIENT else self._packed()
        wrong = np.zeros(1, np.int64)
        data = X.data.view(np.uint8) if X.dtype.kind == "b" else X.data
        problem = SparseProblem(
            indptr=address(X.indptr),
            indices=address(X.indices),
            index_type=np.empty(0, X.indices.dtype),
            values=address(data),
            source=np.empty(0, data.dtype),
            slots=address(slots),
            wrong=address(wrong),
            n_rows=n_rows,
            first_block=self.blocks,
            n_features=X.shape[1],
            n_classes=len(self.W),
            n_logits=len(self.rows),
            block_rows=self.plan.block_rows,
            run_blocks=self.plan.run_blocks,
            W_t=address(self.transposed),
            whole_logits=self.logit_parts[0],
            other_logits=self.logit_parts[1],
            whole_classes=self.plan.parts[0],
            other_classes=self.plan.parts[1],
            weights=address(panels),
            packed=True,
            bias=address(self.row_biases),
            mode=self.mode,
            out=address(out),
            denominator=float(targets.total),
        )
        work = plans.sparse_work(n_rows, X.n_nonzeros, len(self.rows))
        self._run(problem, targets, work, 0, row_losses)
        if wrong[0]:
            raise ValueError("X: column indices out of range: the matrix was changed meanwhile")


def _by_features(rows: Array, whole: int, rest: int) -> Array:
    """Lay W out by features for the sparse kernel: (D, whole), then (D, rest), padded by zeros."""
    n_features = rows.shape[1]
    flat: Array = aligned(1, (whole + rest) * n_features, rows.dtype)[0]
    for first, size in ((0, whole), (whole, rest)):
        block = flat[first * n_features : (first + size) * n_features].reshape(n_features, size)
        part = rows[first : first + size]
        block[:, : len(part)] = part.T
        block[:, len(part) :] = 0
    return flat


def _readable(X: Array, dtype: np.dtype[Any]) -> bool:
    """Whether the kernel reads X as it lies: native, aligned, rows or columns contiguous."""
    if not (X.flags.aligned and X.dtype.isnative):
        return False
    if X.dtype != dtype and X.dtype.kind not in "iub" and X.dtype.name not in _STORED:
        return False
    return _layout(X)[1] is not None


def _layout(X: Array) -> tuple[bool, Any]:
    """(rows contiguous?, the other stride in elements); the stride is None for neither."""
    if X.flags.c_contiguous:
        return True, X.shape[1]
    size = X.itemsize
    for by_row, inner, length in ((True, 1, X.shape[1]), (False, 0, X.shape[0])):
        outer_stride, inner_stride = X.strides[1 - inner], X.strides[inner]
        if (inner_stride == size or length == 1) and outer_stride % size == 0:
            return by_row, outer_stride // size
    return True, None
