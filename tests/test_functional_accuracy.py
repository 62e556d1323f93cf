"""Loss and gradient of the kernels against wider arithmetic, on every kind of shape."""

import numpy as np
import oracle
import pytest
from problems import make_problem, random_shapes

import fastsoftmax
from fastsoftmax import reference

DTYPES = (np.float32, np.float64)


def assert_accurate(problem, bias, l2, sample_weight):
    X, W, y = problem
    options = {"bias": bias, "l2": l2, "sample_weight": sample_weight}
    truth = oracle.linear_cross_entropy(X, W, y, **options)
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, **options)
    numpy_loss, numpy_grad = reference.linear_cross_entropy_value_and_grad(X, W, y, **options)
    eps = np.finfo(X.dtype).eps
    oracle.assert_close_to_truth(loss, numpy_loss, truth.loss, truth.loss_terms, eps)
    oracle.assert_close_to_truth(
        grad.weight, numpy_grad.weight, truth.weight, truth.weight_terms, eps
    )
    assert grad.weight.dtype == X.dtype
    assert grad.weight.flags.c_contiguous
    if bias is None:
        assert grad.bias is None
    else:
        oracle.assert_close_to_truth(grad.bias, numpy_grad.bias, truth.bias, truth.bias_terms, eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", random_shapes(60), ids=str)
def test_random_shapes(shape, dtype):
    X, W, y, bias, sample_weight = make_problem(*shape, dtype)
    if shape[0] == 1:
        sample_weight[:] = 2
    assert_accurate((X, W, y), bias, 0.01, sample_weight)
    assert_accurate((X, W, y), None, 0.0, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_logits_and_long_rows(dtype):
    X, W, y, bias, sample_weight = make_problem(400, 1000, 20, dtype, scale=100.0)
    assert_accurate((X, W, y), bias, 0.0, sample_weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_rows_sum_to_zero_and_bias_shift_changes_nothing(dtype):
    X, W, y, bias, _ = make_problem(300, 40, 11, dtype)
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    eps = float(np.finfo(dtype).eps)
    assert np.abs(grad.weight.sum(axis=0)).max() < 30 * eps
    shifted = fastsoftmax.linear_cross_entropy(X, W, y, bias=bias + dtype(8))
    assert shifted == pytest.approx(loss, rel=40 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_equal_repeated_rows(dtype):
    X, W, y, bias, _ = make_problem(200, 17, 6, dtype)
    counts = np.random.default_rng(1).integers(0, 4, len(X))
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(
        X, W, y, bias=bias, sample_weight=counts
    )
    repeated_loss, repeated = fastsoftmax.linear_cross_entropy_value_and_grad(
        X.repeat(counts, axis=0), W, y.repeat(counts), bias=bias
    )
    eps = float(np.finfo(dtype).eps)
    assert loss == pytest.approx(repeated_loss, rel=20 * eps)
    np.testing.assert_allclose(grad.weight, repeated.weight, atol=20 * eps)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["X", "W", "bias"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_flow_as_in_the_reference(place, value, dtype):
    X, W, y, bias, _ = make_problem(150, 19, 7, dtype)
    y[:] = 1
    target = {"X": X, "W": W, "bias": bias}[place]
    target.flat[2] = value
    loss, grad = fastsoftmax.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    want_loss, want = reference.linear_cross_entropy_value_and_grad(X, W, y, bias=bias)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-4)
    np.testing.assert_allclose(grad.weight, want.weight, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(grad.bias, want.bias, rtol=1e-3, atol=1e-5)


def test_float32_gradient_survives_a_million_rows():
    # Sums of many equal terms: one float32 running sum would lose digits here.
    X = np.ones((1_000_000, 1), np.float32)
    y = np.zeros(len(X), np.int64)
    _, grad = fastsoftmax.linear_cross_entropy_value_and_grad(X, np.zeros((3, 1)), y)
    np.testing.assert_allclose(grad.weight[:, 0], [-2 / 3, 1 / 3, 1 / 3], rtol=3e-6)
