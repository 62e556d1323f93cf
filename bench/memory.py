"""How much memory an evaluation takes beyond its inputs: ``python bench/memory.py``.

Each case runs in a fresh process, which first loads the kernels with a small problem of the same
kind, then makes the data, resets the kernel's record of the peak (VmHWM) and evaluates once. What
the peak grew by holds scratch, slabs and results. Writes results/memory.md; status 1 if a promise
is missed. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import linear
import machine
import numpy as np

RESULTS = Path(__file__).parent / "results"
MIB = 1 << 20
SMALL = (8192, 128, 128)  # large enough for the parallel kernels, all of them
SMALL_HESSIAN = (8192, 30, 20)
SMALL_RUNS = 3  # the first two evaluations of a kind are serial
NONZEROS = 60  # of a sparse row
CHUNK_ROWS = 100_000


@dataclasses.dataclass(frozen=True)
class Case:
    """What is evaluated, on which X, and what it may take; without ``promise`` the general one."""

    call: str
    layout: str
    shape: tuple[int, int, int]
    dtype: str
    promise: int | None = None
    threads: int = machine.N_THREADS

    @property
    def limit(self) -> int:
        """Bytes promised: max(256 MiB, 16 times the size of W), whatever N, unless less is."""
        _, n_features, n_classes = self.shape
        size = 8 if self.dtype == "float64" else 4
        return self.promise or max(256 * MIB, 16 * size * n_features * n_classes)


# ---------------------------------------------------------------------------------- the inputs


def dense(shape: tuple[int, int], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, dtype=dtype)


def strided(shape: tuple[int, int], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return dense((shape[0], 2 * shape[1]), dtype, rng)[:, ::2]


def by_columns(shape: tuple[int, int], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return dense(shape[::-1], dtype, rng).T


def halves(shape: tuple[int, int], dtype: str, rng: np.random.Generator) -> np.ndarray:
    X = np.empty(shape, np.float16)
    for start in range(0, len(X), CHUNK_ROWS):
        X[start : start + CHUNK_ROWS] = dense(X[start : start + CHUNK_ROWS].shape, dtype, rng)
    return X


def images(shape: tuple[int, int], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, shape, np.uint8)


def csr(shape: tuple[int, int], dtype: str, rng: np.random.Generator) -> Any:
    from scipy.sparse import csr_matrix

    n_rows, n_features = shape
    indices = rng.integers(0, n_features, n_rows * NONZEROS, np.int32)
    indptr = np.arange(0, len(indices) + 1, NONZEROS, dtype=np.int32)
    return csr_matrix((dense(indices.shape, dtype, rng), indices, indptr), shape=shape)


LAYOUTS: dict[str, Callable[..., Any]] = {
    "C order": dense,
    "F order": by_columns,
    "strided": strided,
    "float16": halves,
    "uint8": images,
    "CSR": csr,
}


# ------------------------------------------------------------------------------ the evaluations

Run = Callable[[], Any]


def functional(X: Any, W: np.ndarray, y: np.ndarray) -> Run:
    from fastsoftmax import linear_cross_entropy_value_and_grad

    bias = np.zeros(len(W), W.dtype)
    return lambda: linear_cross_entropy_value_and_grad(X, W, y, bias=bias)


def objective_call(method: str, n_vectors: int) -> Callable[[Any, np.ndarray, np.ndarray], Run]:
    """Return a method of an objective that is prepared before, as are the vectors."""

    def prepare(X: Any, W: np.ndarray, y: np.ndarray) -> Run:
        from fastsoftmax import SoftmaxObjective

        objective = SoftmaxObjective(X, y, n_classes=len(W), fit_intercept=False)
        vectors = [objective.pack(W)] * n_vectors
        return lambda: getattr(objective, method)(*vectors)

    return prepare


def streamed(X: Any, W: np.ndarray, y: np.ndarray) -> Run:
    """Prepare an objective of chunks; they are copies, as if read from a file."""
    from fastsoftmax import SoftmaxObjective

    def source() -> Any:
        for start in range(0, X.shape[0], CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            yield X[rows].copy(), y[rows]

    n_classes, n_features = W.shape
    objective = SoftmaxObjective.from_chunks(
        source, n_features=n_features, n_classes=n_classes, fit_intercept=False
    )
    w = objective.pack(W)
    return lambda: objective(w)


CALLS: dict[str, Callable[[Any, np.ndarray, np.ndarray], Run]] = {
    "loss and gradient": functional,
    "objective": objective_call("__call__", 1),
    "objective.value": objective_call("value", 1),
    "objective.hessp": objective_call("hessp", 2),
    "objective.hess_diag": objective_call("hess_diag", 1),
    "objective.hess": objective_call("hess", 1),
    "objective.from_chunks": streamed,
}
DTYPES = ("float32", "float64")
FEW_CLASSES = (1_000_000, 100, 10)
PROMISES = {FEW_CLASSES: 64 * MIB}
IMAGES = (60_000, 784, 10)
# A few thousand rows: what a sparse problem takes follows from D and K.
SPARSE = [(50_000, 50_000, 20), (20_000, 1_000_000, 20), (2_000, 2_000, 50_000)]
CASES = [
    *(
        Case("loss and gradient", "C order", shape, dtype, PROMISES.get(shape))
        for dtype in DTYPES
        for shape in linear.SHAPES
    ),
    *(
        Case("loss and gradient", "C order", shape, "float32")
        for shape in [(4_000_000, 20, 3), (2_000, 500, 50_000)]
    ),
    *(
        Case("loss and gradient", layout, FEW_CLASSES, "float32", 64 * MIB)
        for layout in ("F order", "strided", "float16")
    ),
    # Slabs and scratch of many classes; more threads than this machine may have.
    Case("loss and gradient", "C order", (4_000, 20, 100_000), "float32"),
    Case("loss and gradient", "C order", (4_000, 20, 100_000), "float32", threads=16),
    *(
        Case("loss and gradient", "C order", shape, dtype, threads=16)
        for dtype in DTYPES
        for shape in ((20_000, 256, 10_000), (4_000, 64, 30_000))
    ),
    # Less than one copy of X in float32.
    Case("loss and gradient", "uint8", IMAGES, "float32", 4 * IMAGES[0] * IMAGES[1]),
    *(
        Case(call, "C order", (200_000, 50, 10), dtype)
        for dtype in DTYPES
        for call in ("objective", "objective.value", "objective.hessp", "objective.hess_diag")
    ),
    # The Hessian itself, and what may be taken beside it.
    *(
        Case("objective.hess", "C order", (n, d, k), dtype, 8 * (d * k) ** 2 + 256 * MIB)
        for dtype in DTYPES
        for n, d, k in ((200_000, 50, 10), (600, 90, 90), (600, 4_096, 2), (600, 2, 4_096))
    ),
    Case("objective.from_chunks", "C order", FEW_CLASSES, "float32"),
    *(Case("loss and gradient", "CSR", shape, dtype) for dtype in DTYPES for shape in SPARSE[:2]),
    Case("loss and gradient", "CSR", SPARSE[2], "float32"),
    *(
        Case(call, "CSR", SPARSE[0], "float32")
        for call in CALLS
        if call.startswith("objective") and call != "objective.hess"  # too large for it
    ),
]


# --------------------------------------------------------------------------------- the measure


def prepared(case: Case, shape: tuple[int, int, int]) -> Run:
    n_rows, n_features, n_classes = shape
    rng = np.random.default_rng(0)
    X = LAYOUTS[case.layout]((n_rows, n_features), case.dtype, rng)
    W = dense((n_classes, n_features), case.dtype, rng)
    W /= 10 * np.sqrt(n_features)
    return CALLS[case.call](X, W, rng.integers(0, n_classes, n_rows))


def growth(run: Run) -> int:
    """Bytes by which the most memory held while running exceeds that held before."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed counts again when it is used again
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    result = run()
    peak = kilobytes("VmHWM")
    del result
    return (peak - before) << 10


def kilobytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{field}:\s+(\d+) kB", status)[0])


def measure(case: Case) -> int:
    """Bytes that one evaluation takes beyond its inputs; to be called in a fresh process."""
    os.environ["NUMBA_NUM_THREADS"] = str(case.threads)  # before Numba is imported
    small = prepared(case, SMALL if case.call != "objective.hess" else SMALL_HESSIAN)
    for _ in range(SMALL_RUNS):
        small()
    del small
    run = prepared(case, case.shape)
    known = 32 * MIB
    for _ in range(2):  # the second time, the first one's peak must be forgotten
        if not 0 <= growth(lambda: np.ones(known, np.uint8)) - known < MIB:
            raise RuntimeError("this system's record of the peak (VmHWM) cannot be relied on")
    return growth(run)


def shown(size: float) -> str:
    return f"{size:.3g}" if size < 100 else f"{size:,.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose row contains this")
    parser.add_argument("--name", default="memory", help="of the file in bench/results")
    options = parser.parse_args()
    lines = [
        "# Memory of one evaluation beyond its inputs",
        "",
        "Growth of the peak, results included, in MiB; each case in a fresh process, its kernels "
        f"loaded, on {machine.N_THREADS} cores. W is in the dtype of the arithmetic. Promised is "
        "max(256, 16 times W), whatever N, where no less is. Streamed chunks count, two at a time.",
        "",
        "| evaluation | X | shape (N, D, K) | dtype | threads | W | grew by | promised | |",
        "|---" * 9 + "|",
    ]
    print("\n".join(lines), flush=True)
    missed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        for case in CASES:
            shape = "(" + ", ".join(f"{n:,}" for n in case.shape) + ")"
            about = f"| {case.call} | {case.layout} | {shape} | {case.dtype} | {case.threads} |"
            if options.only not in about:
                continue
            grown = fresh.submit(measure, case).result()
            missed += grown > case.limit
            weights = case.shape[1] * case.shape[2] * np.dtype(case.dtype).itemsize
            sizes = " | ".join(shown(size / MIB) for size in (weights, grown, case.limit))
            lines.append(f"{about} {sizes} | {'MISSED' if grown > case.limit else 'ok'} |")
            print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.md").write_text("\n".join([*lines, ""]))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
