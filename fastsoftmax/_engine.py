"""Run a plan: workspace, layouts the kernel cannot read, and when not to go parallel."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from fastsoftmax import _pace, _plan
from fastsoftmax._kernels import driver
from fastsoftmax._kernels.dense import Problem
from fastsoftmax._kernels.loss import Terms
from fastsoftmax._options import Targets

Array = npt.NDArray[Any]

# Rows in a layout the kernel does not read are converted this many bytes at a time.
_CONVERTED_BYTES = 16 << 20
_FINISH_SERIAL = 1 << 18

_one_region = threading.Lock()
_forked_after_threads = False


def _after_fork() -> None:
    # GNU OpenMP does not survive a fork, and Numba kills the child that tries.
    global _forked_after_threads, _one_region
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    _forked_after_threads |= bool(getattr(parallel, "_is_initialized", False))
    _one_region = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def parallel_region(n_workers: int) -> Iterator[int]:
    """How many of ``n_workers`` may run now: all, or 1, which the serial twin must be."""
    if n_workers < 2 or _forked_after_threads:
        yield 1
        return
    try:
        reentrant = numba.threading_layer() != "workqueue"
    except ValueError:  # no parallel kernel has run yet
        reentrant = False
    if reentrant:
        yield n_workers
        return
    # Numba aborts the process when two threads enter a workqueue region.
    acquired = _one_region.acquire(blocking=False)
    try:
        yield n_workers if acquired else 1
    finally:
        if acquired:
            _one_region.release()


def threads() -> int:
    """Numba's thread count for the calling thread."""
    return int(numba.get_num_threads())


class Accumulator:
    """Loss and gradient sums over rows that come in one or many pieces.

    Pieces may be cut anywhere only if every piece but the last is a multiple of
    ``plan.block_rows`` rows.
    """

    def __init__(
        self, W: Array, bias: Array | None, center: Array | None = None, *, gradient: bool = True
    ) -> None:
        n_classes, n_features = W.shape
        self.plan = _plan.make_plan(n_features, n_classes, W.dtype)
        self.W = W
        self.bias = np.zeros(n_classes, W.dtype) if bias is None else bias
        self.center = np.zeros(self.plan.padded_features, W.dtype)
        self.centred = center is not None and bool(center.any())
        if center is not None:
            self.center[:n_features] = center
        self.gradient = gradient
        slab = self.plan.slab_size if gradient else 1
        self.slabs = aligned(self.plan.n_slots, slab, W.dtype)
        self.losses = np.empty(self.plan.n_slots)
        self.blocks = 0

    def add(
        self,
        X: Array,
        targets: Targets,
        row_losses: Array | None = None,
        input_grad: Array | None = None,
    ) -> None:
        """Add the rows of X; fill ``row_losses`` (N,) and ``input_grad`` (N, D) if given."""
        if _readable(X, self.W.dtype):
            self._run(X, 0, targets, row_losses, input_grad)
            return
        bytes_a_row = X.shape[1] * self.W.itemsize
        step = max(_CONVERTED_BYTES // bytes_a_row // self.plan.block_rows, 1)
        step *= self.plan.block_rows
        for start in range(0, len(X), step):
            with np.errstate(over="ignore", invalid="ignore"):
                piece = np.ascontiguousarray(X[start : start + step], self.W.dtype)
            self._run(piece, start, targets, row_losses, input_grad)

    def _run(
        self,
        X: Array,
        start: int,
        targets: Targets,
        row_losses: Array | None,
        input_grad: Array | None,
    ) -> None:
        """Run the kernel on X, rows ``start`` and on of what ``targets`` and outputs belong to."""
        n_rows, n_features = X.shape
        if n_rows == 0:
            return
        W = self.W
        if input_grad is not None:  # whole vectors are read there, past the last row's end
            W = np.concatenate([W.ravel(), np.zeros(self.plan.tile, W.dtype)])
        by_row, stride = _layout(X)
        source = X.view(np.uint8) if X.dtype.kind == "b" else X
        problem = Problem(
            address=address(X),
            source=np.empty(0, source.dtype),
            by_row=by_row,
            stride=stride,
            plain=by_row and X.dtype == W.dtype and stride >= n_features and not self.centred,
            n_rows=n_rows,
            first_block=self.blocks,
            n_features=n_features,
            n_classes=len(self.W),
            block_rows=self.plan.block_rows,
            W=address(W),
            bias=address(self.bias),
            center=address(self.center),
            gradient=self.gradient,
            input_grad=address(input_grad, start),
            denominator=float(targets.total),
        )
        terms = make_terms(targets, start, row_losses)
        workers = _plan.n_workers(self.plan, n_rows, W.dtype, threads())
        kind = (self.W.shape, W.dtype, workers, self.gradient, targets.soft)
        work = _plan.work(self.plan, n_rows)
        if workers > 1 and _pace.prefers_serial(kind, work):
            workers = 1
        with parallel_region(workers) as workers:
            run = driver.run_parallel if workers > 1 else driver.run_serial
            scratch = aligned(workers, self.plan.scratch_size, W.dtype)
            started = time.perf_counter()
            run(problem, terms, self.slabs, self.losses, scratch, np.zeros(1, np.int64))
            seconds = time.perf_counter() - started
        _pace.learn(kind, work, parallel=workers > 1, seconds_per_row=seconds / n_rows)
        self.blocks += -(-n_rows // self.plan.block_rows)

    def loss(self, total: float, l2: float) -> float:
        """Σ losses / total + l2·‖W‖²."""
        used = min(self.blocks, self.plan.n_slots)
        loss = float(self.losses[:used].sum()) / total
        if l2:
            loss += l2 * float(np.einsum("kd,kd->", self.W, self.W, dtype=np.float64))
        return loss

    def finish(self, total: float, l2: float) -> tuple[float, Array, Array]:
        """Return the loss, its gradient in W (K, D) and in b (K,); the sums are used up."""
        used = min(self.blocks, self.plan.n_slots)
        gradient, bias_gradient = np.empty_like(self.W), np.empty_like(self.bias)
        scalar = self.W.dtype.type
        if used == 0:
            return self.loss(total, l2), scalar(2 * l2) * self.W, np.zeros_like(self.bias)
        arguments = (
            self.slabs[:used],
            self.plan.tile,
            self.W.shape[0] * self.plan.padded_features,
            scalar(total),
            scalar(2 * l2),
            self.W,
            gradient,
            bias_gradient,
        )
        workers = threads() if self.W.size * used > _FINISH_SERIAL else 1
        with parallel_region(workers) as workers:
            (driver.finish_parallel if workers > 1 else driver.finish_serial)(*arguments)
        return self.loss(total, l2), gradient, bias_gradient


def make_terms(targets: Targets, start: int = 0, row_losses: Array | None = None) -> Terms:
    """Return addresses of rows ``start`` and on, for the kernels; the arrays must outlive them."""
    return Terms(
        labels=address(targets.labels, start),
        weight=address(targets.weight, start),
        targets=address(targets.probabilities, start),
        soft=targets.soft,
        peak=address(targets.peak),
        floor=address(targets.floor),
        alpha=targets.alpha,
        row_losses=address(row_losses, start),
    )


def address(array: Array | None, row: int = 0) -> int:
    """Address of a row of an array; 0 for None."""
    if array is None:
        return 0
    return int(array.__array_interface__["data"][0]) + row * array.strides[0]


def aligned(rows: int, row_length: int, dtype: np.dtype[Any]) -> Array:
    """Allocate a (rows, row_length) array that starts on a cache line, as every row of it does."""
    size = rows * row_length * dtype.itemsize
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.__array_interface__["data"][0] % 64
    return buffer[start : start + size].view(dtype).reshape(rows, row_length)


def _readable(X: Array, dtype: np.dtype[Any]) -> bool:
    """Whether the kernel reads X as it lies: native, aligned, rows or columns contiguous."""
    if not (X.flags.aligned and X.dtype.isnative):
        return False
    # The conversion of halves is one libm call a lane without F16C.
    if X.dtype != dtype and X.dtype.kind not in "iub":
        return False
    return _layout(X)[1] is not None


def _layout(X: Array) -> tuple[bool, Any]:
    """(rows contiguous?, the other stride in elements); the stride is None for neither."""
    size = X.itemsize
    for by_row, inner, length in ((True, 1, X.shape[1]), (False, 0, X.shape[0])):
        outer_stride, inner_stride = X.strides[1 - inner], X.strides[inner]
        if (inner_stride == size or length == 1) and outer_stride % size == 0:
            return by_row, outer_stride // size
    return True, None
