"""Memory that kernels are given: where arrays lie, and scratch that begins on a cache line."""

from typing import Any

import numpy as np

from fastsoftmax.reference import Array


def address(array: Array | None, row: int = 0) -> int:
    """Address of a row of an array; 0 for None."""
    if array is None:
        return 0
    return int(array.__array_interface__["data"][0]) + row * array.strides[0]


def aligned(rows: int, row_length: int, dtype: np.dtype[Any]) -> Array:
    """Allocate a (rows, row_length) array that begins on a cache line of 64 bytes."""
    size = rows * row_length * dtype.itemsize
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.__array_interface__["data"][0] % 64
    return buffer[start : start + size].view(dtype).reshape(rows, row_length)
