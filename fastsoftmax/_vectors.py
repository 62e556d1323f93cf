"""Runs the kernel of sweeps over long vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._engine import parallel_region, threads
from fastsoftmax._kernels import vectors as kernels

Array = npt.NDArray[Any]


def add_and_dot(a: Array, factor: float, b: Array, c: Array) -> float:
    """Add factor·b to a, in place; return Σ a·c."""
    sums = np.empty(-(-len(a) // kernels.BLOCK))
    with parallel_region(min(threads(), len(sums))) as workers:
        run = kernels.draw_blocks_parallel if workers > 1 else kernels.draw_blocks
        run(a, factor, b, c, sums, np.array([0, workers]))
    return float(sums.sum())
