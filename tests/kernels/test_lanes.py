"""What is done across the lanes of a vector."""

import numpy as np
import pytest
from numba import njit

from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector.lanes import integer_bits, lane_numbers, permute
from fastsoftmax._kernels.vector.simd import load, pointer, splat, store


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_permutation(dtype):
    @njit
    def turn(x, out):
        index = integer_bits(lane_numbers(load(pointer(x))) + splat(3, load(pointer(x))))
        store(pointer(out), permute(load(pointer(x)), index))

    lanes = emit.VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.arange(lanes, dtype=dtype)
    out = np.empty_like(x)
    turn(x, out)
    np.testing.assert_array_equal(out, np.roll(x, -3))
