"""Squares of vectors: transposition, and sums and maxima of their rows."""

import numpy as np
import pytest
from numba import njit

from fastsoftmax._kernels.vector import emit, squares
from fastsoftmax._kernels.vector.simd import advance, pointer, store


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transpose(dtype):
    @njit
    def transpose_block(x, out):
        rows = squares.load_rows(pointer(x), x.shape[1], pointer(x))
        squares.store_rows(pointer(out), out.shape[1], squares.transpose(rows))

    lanes = emit.VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.arange(lanes * (lanes + 3), dtype=dtype).reshape(lanes, lanes + 3)
    out = np.empty((lanes, lanes), dtype)
    transpose_block(x, out)
    np.testing.assert_array_equal(out, x[:, :lanes].T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_across_the_lanes_of_rows(dtype):
    @njit
    def reduce_block(x, out):
        rows = squares.load_rows(pointer(x), x.shape[1], pointer(x))
        store(pointer(out), squares.sums_of_rows(rows))
        store(advance(pointer(out), x.shape[1]), squares.largest_of_rows(rows))

    lanes = emit.VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.random.default_rng(0).permutation(lanes * lanes).astype(dtype).reshape(lanes, lanes)
    out = np.empty((2, lanes), dtype)
    reduce_block(x, out)
    np.testing.assert_array_equal(out, [x.sum(axis=1), x.max(axis=1)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns(dtype):
    @njit
    def load_block(x, columns, out):
        vectors = squares.load_columns(pointer(x), x.shape[1], columns, pointer(x))
        squares.store_rows(pointer(out), out.shape[1], vectors)

    lanes, n = emit.VECTOR_BYTES // np.dtype(dtype).itemsize, 16 // np.dtype(dtype).itemsize
    x = np.random.default_rng(0).standard_normal((lanes, n + 3)).astype(dtype)
    for columns in range(1, n + 1):
        out = np.empty((n, lanes), dtype)
        load_block(x, columns, out)
        np.testing.assert_array_equal(out[:columns], x[:, :columns].T)
        assert not out[columns:].any()
