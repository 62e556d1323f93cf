"""What this machine can do at most: read bandwidth and multiply-adds, on all its cores."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import machine
import numpy as np
from numba import njit, prange

from fastsoftmax._kernels.vector.emit import HEIGHT, VECTOR_BYTES, WIDTH
from fastsoftmax._kernels.vector.lanes import sum_lanes
from fastsoftmax._kernels.vector.simd import advance, lane_count, load, pointer
from fastsoftmax._kernels.vector.tiles import contract

_DEPTH = 256


@njit(nogil=True, error_model="numpy")
def _read(x):
    p = pointer(x)
    lanes = lane_count(p)
    a, b, c, d = load(p), load(p), load(p), load(p)
    for i in range(0, len(x) - 4 * lanes + 1, 4 * lanes):
        a = a + load(advance(p, i))
        b = b + load(advance(p, i + lanes))
        c = c + load(advance(p, i + 2 * lanes))
        d = d + load(advance(p, i + 3 * lanes))
    return sum_lanes((a + b) + (c + d))


@njit(parallel=True)
def _read_all(parts, out):
    for i in prange(len(parts)):
        out[i] = _read(parts[i])


@njit(parallel=True, error_model="numpy")
def _multiply_all(a, b, c, repeats):
    for i in prange(len(a)):
        row = WIDTH * lane_count(pointer(b[i]))
        for _ in range(repeats):
            contract(
                HEIGHT, WIDTH, _DEPTH,
                pointer(a[i]), _DEPTH, 1,
                pointer(b[i]), row,
                pointer(c[i]), row,
                pointer(c[i]), row,
                b[i].ctypes.data, 0,
            )  # fmt: skip


def _median_time(function: Callable[[], object], rounds: int = 9) -> float:
    function()
    durations = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def read_bandwidth() -> float:
    """Bytes a second that all cores together read from an array far larger than their L2."""
    x = np.ones((4 * machine.N_THREADS, 16_000_000 // machine.N_THREADS), np.float32)
    out = np.empty(len(x))
    return x.nbytes / _median_time(lambda: _read_all(x, out))


def multiply_add_peak(dtype: str) -> float:
    """Floating-point operations a second of the micro-kernel with all its data in L1."""
    threads, row = machine.N_THREADS, WIDTH * VECTOR_BYTES // np.dtype(dtype).itemsize
    a = np.ones((threads, HEIGHT * _DEPTH), dtype)
    b, c = np.ones((threads, _DEPTH * row), dtype), np.zeros((threads, HEIGHT * row), dtype)
    repeats = 5000
    seconds = _median_time(lambda: _multiply_all(a, b, c, repeats))
    return 2.0 * threads * HEIGHT * row * _DEPTH * repeats / seconds
