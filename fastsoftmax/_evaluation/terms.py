"""Targets as kernels are given them: by address."""

from typing import Any

import numpy as np

from fastsoftmax._evaluation.memory import address
from fastsoftmax._evaluation.targets import Targets
from fastsoftmax._kernels.softmax.losses import Terms
from fastsoftmax.reference import Array


def make_terms(
    targets: Targets, dtype: np.dtype[Any], start: int = 0, row_losses: Array | None = None
) -> Terms:
    """Return addresses of the targets of rows ``start`` and on; the arrays must outlive them.

    The kernels read whatever lies there as numbers of ``dtype``, so that is checked here.
    """
    for array in (targets.weight, targets.probabilities, targets.peak, targets.floor):
        if array is not None and array.dtype != dtype:
            raise TypeError(f"targets: expected {dtype}, as the features are, got {array.dtype}")
    return Terms(
        labels=address(targets.labels, start),
        weight=address(targets.weight, start),
        targets=address(targets.probabilities, start),
        soft=targets.soft,
        peak=address(targets.peak) if targets.soft else 0,
        floor=address(targets.floor) if targets.soft else 0,
        alpha=targets.alpha,
        row_losses=address(row_losses, start),
    )
