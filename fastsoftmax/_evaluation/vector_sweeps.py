"""Runs the kernel of sweeps over long vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.threads import draw, n_threads
from fastsoftmax._kernels.algebra.vectors import BLOCK, draw_blocks

Array = npt.NDArray[Any]


def add_and_dot(a: Array, factor: float, b: Array, c: Array) -> float:
    """Add factor·b to a, in place; return Σ a·c."""
    sums = np.empty(-(-len(a) // BLOCK))
    draw(draw_blocks, factor, a, b, c, sums, n_workers=min(n_threads(), len(sums)))
    return float(sums.sum())
