"""linear_softmax, linear_log_softmax and linear_argmax against the reference."""

import numba
import numpy as np
import pytest
import scipy.sparse as sp

import fastsoftmax
from fastsoftmax import reference

NAMES = ["linear_softmax", "linear_log_softmax", "linear_argmax"]
SHAPES = [(1, 1, 2), (1000, 20, 3), (777, 100, 10), (3000, 33, 40), (130, 70, 1000)]


def problem(shape, dtype, scale=3.0):
    n_rows, n_features, n_classes = shape
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n_rows, n_features)) * scale).astype(dtype)
    return X, rng.standard_normal((n_classes, n_features)), rng.standard_normal(n_classes)


LAYOUTS = {
    "plain": lambda X: X,
    "by columns": np.asfortranarray,
    "reversed": lambda X: X[:, ::-1],
    "every other": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "CSR": lambda X: sp.csr_array(X),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "?"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference(name, shape, dtype, layout):
    X, W, bias = problem(shape, dtype)
    X = LAYOUTS[layout](X)
    got = getattr(fastsoftmax, name)(X, W, bias=bias)
    want = getattr(reference, name)(X, W, bias=bias)
    assert got.dtype == want.dtype
    if name == "linear_argmax":
        # Logits of the winner and of the one that was named are equal but for rounding.
        Z = np.asarray(X @ W.T) + bias
        named, best = (Z[np.arange(len(Z)), k] for k in (got, want))
        np.testing.assert_allclose(named, best, atol=1e-11 if X.dtype == "f8" else 1e-4)
        assert (got == want).mean() >= 0.99
    else:
        tolerance = 1e-4 if got.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_float16_features():
    X, W, bias = problem((300, 20, 7), np.float16)
    got = fastsoftmax.linear_softmax(X, W, bias=bias)
    want = reference.linear_softmax(X.astype(np.float32), W, bias=bias)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_as_in_the_reference(name):
    X, W, _ = problem((50, 7, 5), np.float64)
    X[3], X[4, 0], X[5], X[6, 1] = np.nan, np.inf, 1e308, -np.inf
    with np.errstate(all="ignore"):
        got = getattr(fastsoftmax, name)(X, W)
        want = getattr(reference, name)(X, W)
    if name == "linear_argmax":
        assert got.tolist() == want.tolist()
    else:
        for pattern in (np.isnan, np.isposinf, np.isneginf):
            assert (pattern(got) == pattern(want)).all()


def test_argmax_takes_the_first_of_equals():
    X = np.ones((70, 3), np.float32)
    W = np.array([[1.0], [2.0], [2.0], [0.0]]) * np.ones((1, 3))
    assert set(fastsoftmax.linear_argmax(X, W).tolist()) == {1}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(20_000, 30, 7), (300, 500, 600)], ids=str)
def test_same_bits_for_any_number_of_threads_and_any_chunks(name, shape):
    X, W, bias = problem(shape, np.float32, 1.0)
    score = getattr(fastsoftmax, name)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        want = score(X, W, bias=bias)
    finally:
        numba.set_num_threads(before)
    assert score(X, W, bias=bias).tobytes() == want.tobytes()
    parts = [score(X[i : i + 97], W, bias=bias) for i in range(0, len(X), 97)]
    assert np.concatenate(parts).tobytes() == want.tobytes()


def test_out_is_filled_and_returned():
    X, W, bias = problem((100, 20, 7), np.float32)
    guarded = np.full((102, 7), 5.0, np.float32)
    out = guarded[1:-1]
    assert fastsoftmax.linear_softmax(X, W, bias=bias, out=out) is out
    np.testing.assert_array_equal(out, fastsoftmax.linear_softmax(X, W, bias=bias))
    assert (guarded[[0, -1]] == 5).all()


def test_wrong_arguments_are_named():
    X, W, bias = problem((100, 7, 7), np.float32)
    W = W.astype(np.float32)
    for out, message in (
        (np.empty((100, 6), np.float32), r"out: expected shape \(100, 7\)"),
        (np.empty((7, 100), np.float32).T, "out: expected a C-contiguous array"),
        (X, "out: expected an array sharing no memory with X"),
    ):
        with pytest.raises(ValueError, match=message):
            fastsoftmax.linear_softmax(X, W, bias=bias, out=out)
    with pytest.raises(TypeError, match="out: expected dtype float32"):
        fastsoftmax.linear_softmax(X, W, out=np.empty((100, 7)))
    square = np.zeros((7, 7), np.float32)
    with pytest.raises(ValueError, match="out: expected an array sharing no memory with W"):
        fastsoftmax.linear_log_softmax(X[:7], square, out=square)
    with pytest.raises(ValueError, match="W: expected shape"):
        fastsoftmax.linear_argmax(X, W[:, :3])
    with pytest.raises(ValueError, match="bias: expected shape"):
        fastsoftmax.linear_argmax(X, W, bias=[1.0])


def test_no_rows():
    assert fastsoftmax.linear_softmax(np.empty((0, 3)), np.ones((2, 3))).shape == (0, 2)
    assert fastsoftmax.linear_argmax(np.empty((0, 3)), np.ones((2, 3))).shape == (0,)


def test_more_classes_than_the_dtype_can_number():
    W = np.zeros(((1 << 23) + 1, 1), np.float32)
    with pytest.raises(ValueError, match="W: expected classes that float32 can number"):
        fastsoftmax.linear_argmax(np.ones((1, 1), np.float32), W)
