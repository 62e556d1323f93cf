"""Memory that kernels are given: where arrays lie, and scratch that begins on a cache line."""

import ctypes
from typing import Any

import numpy as np

from fastsoftmax.reference import Array

# NumPy's C interface fixes that an array object begins, behind what all objects of Python have,
# with the address of its data. To read it there takes 0.16 us, and to ask for it 1.0 us: a call on
# a small batch of rows needs a dozen addresses, and 80 us in all.
_HEAD = object.__basicsize__
_word_at = ctypes.c_size_t.from_address


def _read_address(array: Array) -> int:
    return _word_at(id(array) + _HEAD).value


def _ask_for_address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


_probe = np.empty(1)
_is_there = _read_address(_probe) == _ask_for_address(_probe)
_data_address = _read_address if _is_there else _ask_for_address


def address(array: Array | None, row: int = 0) -> int:
    """Address of a row of an array; 0 for None."""
    if array is None:
        return 0
    return _data_address(array) + row * array.strides[0] if row else _data_address(array)


def aligned(rows: int, row_length: int, dtype: np.dtype[Any]) -> Array:
    """Allocate a (rows, row_length) array that begins on a cache line of 64 bytes."""
    size = rows * row_length * dtype.itemsize
    buffer = np.empty(size + 64, np.uint8)
    start = -address(buffer) % 64
    return buffer[start : start + size].view(dtype).reshape(rows, row_length)
