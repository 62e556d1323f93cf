"""Shapes that nobody tuned for, and lines of shapes along which N, D or K grows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import linear
import numpy as np

Arrays = dict[str, Any]
Shape = tuple[int, int, int]

# N, D and K, the least and the largest of each.
RANGES = ((32, 2_000_000), (1, 4096), (2, 50_257))
# A point's N·D·K at most, and the bytes of its largest matrix: a minute for all peers together.
MOST_WORK, MOST_BYTES = 1e10, 512e6
# Where peers were once faster, and corners of the ranges.
FIXED = [
    ((6056, 3000, 3), "float32"),
    ((3163, 3000, 33), "float32"),
    ((1243, 3000, 130), "float32"),
    ((2_000_000, 1, 2), "float64"),
    ((32, 1024, 50_257), "float32"),
    ((32, 1, 2), "float32"),
]
N_POINTS = 60
PEERS = {
    name: linear.PEERS[name]
    for name in ("fastsoftmax", "scikit-learn", "torch", "torch chunked", "JAX")
}
# Below so many logits torch's chunks of 1,024 rows and more save nothing.
CHUNKED_FROM = 10_000_000


def make(problem: Any) -> Arrays:
    """Normal features and weights; any labels, since drawing them from a model takes longer."""
    n_rows, n_features, n_classes = problem.shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features), dtype=problem.dtype)
    W = rng.standard_normal((n_classes, n_features), dtype=problem.dtype)
    W *= 1 / math.sqrt(n_features)
    b = rng.standard_normal(n_classes, dtype=problem.dtype)
    return {"X": X, "W": W, "b": b, "y": rng.integers(0, n_classes, n_rows)}


def plain_sum_error(problem: Any) -> float:
    """A fiftieth of what a plain sum over the rows may lose in its own precision.

    scikit-learn and torch form such sums: at 1.9 million rows in float32 they were off by 0.1 %.
    """
    return problem.shape[0] * float(np.finfo(problem.dtype).eps) / 50


def peers(shape: Shape) -> list[str]:
    """Who takes part: chunks only where they can save something."""
    large = shape[0] > 1024 and shape[0] * shape[2] > CHUNKED_FROM
    return [name for name in PEERS if large or name != "torch chunked"]


def affordable(shape: Shape, dtype: str) -> bool:
    n, d, k = shape
    bytes_of_largest = max(n * d, n * k, k * d) * np.dtype(dtype).itemsize
    return n * d * k <= MOST_WORK and bytes_of_largest <= MOST_BYTES


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % i for i in range(2, math.isqrt(n) + 1))


def _near(size: float, kind: int) -> int:
    """A number near ``size``: a power of two, one of its neighbours, a prime, or odd."""
    power = 2 ** round(math.log2(size))
    if kind < 3:
        return power + (0, -1, 1)[kind]
    n = round(size) | 1
    while kind == 3 and not _is_prime(n):
        n += 2
    return n


def _drawn() -> Iterator[tuple[Shape, str]]:
    rng = np.random.default_rng(18)
    while True:
        sizes = [math.exp(rng.uniform(math.log(low), math.log(high))) for low, high in RANGES]
        kinds = rng.integers(0, 5, 3)
        dtype = ("float32", "float64")[rng.integers(2)]
        shape = tuple(
            min(max(_near(size, int(kind)), low), high)
            for size, kind, (low, high) in zip(sizes, kinds, RANGES, strict=True)
        )
        if affordable(shape, dtype):
            yield shape, dtype


def points(number: int = N_POINTS) -> list[tuple[Shape, str]]:
    """The first of a fixed list, in which a fixed seed mixed small and large."""
    found = list(FIXED)
    for point in _drawn():
        if len(found) == N_POINTS:
            break
        if point not in found:
            found.append(point)
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order][:number]


# Each letter's sizes, with powers of two and their neighbours, while the other two stay.
LINES: dict[str, list[Shape]] = {
    "N": [(n, 100, 10) for n in (32, 100, 317, 1000, 3163, 10_000, 31_627, 100_000, 1_000_000)],
    "D": [(20_000, d, 10) for d in (1, 3, 8, 17, 64, 65, 255, 512, 1025, 4096)],
    "K": [(5000, 64, k) for k in (2, 3, 10, 33, 64, 129, 500, 1024, 1025, 4099, 10_000)],
}
