"""exp and log of vectors: their errors in units of the last place, and special values."""

import mpmath
import numpy as np
import pytest
from numba import njit

from fastsoftmax._kernels.vector.exp_log import exp, log
from fastsoftmax._kernels.vector.simd import advance, lane_count, load, pointer, store


@njit
def exp_all(x, out):
    for i in range(0, len(x), lane_count(pointer(x))):
        store(advance(pointer(out), i), exp(load(advance(pointer(x), i))))


@njit
def log_all(x, out):
    for i in range(0, len(x), lane_count(pointer(x))):
        store(advance(pointer(out), i), log(load(advance(pointer(x), i))))


def ulp_error(got, values, function):
    """|got - function(values)| in units of the last place of the exact result."""
    worst = 0.0
    tiny = float(np.finfo(got.dtype).smallest_subnormal)
    with mpmath.workdps(30):
        for value, result in zip(values.tolist(), got.tolist(), strict=True):
            exact = function(mpmath.mpf(value))
            unit = max(float(np.spacing(got.dtype.type(float(exact)))), tiny)
            worst = max(worst, float(abs(exact - mpmath.mpf(result)) / unit))
    return worst


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -104.5), (np.float64, -746.5)])
def test_exp_within_one_ulp(dtype, lowest):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            np.linspace(lowest, 0, 4096),
            np.linspace(lowest, 0.84 * lowest, 2048),  # subnormal results
            -np.logspace(-20, 1, 1024),
            np.log(2) * (-0.5 - np.arange(512)) * (1 + rng.uniform(-1e-6, 1e-6, 512)),
        ]
    ).astype(dtype)
    out = np.empty_like(x)
    exp_all(x, out)
    assert ulp_error(out, x, mpmath.exp) < 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_at_the_edges(dtype):
    x = np.zeros(32, dtype)
    x[:5] = -np.inf, np.nan, -1e5, np.finfo(dtype).min, -0.0
    out = np.empty_like(x)
    exp_all(x, out)
    np.testing.assert_array_equal(out[:6], [0, np.nan, 0, 0, 1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_within_one_ulp(dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            np.linspace(1, 3, 2048),
            np.exp(rng.uniform(0, 31 * np.log(2), 4096)),
            2.0 ** np.arange(32),
        ]
    ).astype(dtype)
    out = np.empty_like(x)
    log_all(x, out)
    assert ulp_error(out, x, mpmath.log) < 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_at_the_edges(dtype):
    x = np.ones(32, dtype)
    x[:2] = np.nan, 0
    out = np.zeros_like(x)
    log_all(x, out)
    np.testing.assert_array_equal(out[:3], [np.nan, -np.inf, 0])
