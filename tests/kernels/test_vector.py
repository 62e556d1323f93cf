"""exp, log, transposition, and what the compiler made of the kernels."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpmath
import numpy as np
import pytest
from numba import njit

from fastsoftmax._kernels.vector import emit, tiles
from fastsoftmax._kernels.vector.elementary import exp, log
from fastsoftmax._kernels.vector.lanes import integer_bits, lane_numbers, permute
from fastsoftmax._kernels.vector.simd import advance, lane_count, load, pointer, splat, store


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transpose(dtype):
    @njit
    def transpose_block(x, out):
        rows = tiles.load_rows(pointer(x), x.shape[1], pointer(x))
        tiles.store_rows(pointer(out), out.shape[1], tiles.transpose(rows))

    lanes = emit.VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.arange(lanes * (lanes + 3), dtype=dtype).reshape(lanes, lanes + 3)
    out = np.empty((lanes, lanes), dtype)
    transpose_block(x, out)
    np.testing.assert_array_equal(out, x[:, :lanes].T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_across_the_lanes_of_rows(dtype):
    @njit
    def reduce_block(x, out):
        rows = tiles.load_rows(pointer(x), x.shape[1], pointer(x))
        store(pointer(out), tiles.sums_of_rows(rows))
        store(advance(pointer(out), x.shape[1]), tiles.largest_of_rows(rows))

    lanes = emit.VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.random.default_rng(0).permutation(lanes * lanes).astype(dtype).reshape(lanes, lanes)
    out = np.empty((2, lanes), dtype)
    reduce_block(x, out)
    np.testing.assert_array_equal(out, [x.sum(axis=1), x.max(axis=1)])


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


ASSEMBLY = """
import numpy as np, fastsoftmax as fs
from fastsoftmax._kernels import driver
fs.linear_cross_entropy(np.ones((4, 3), np.{dtype}), np.ones((2, 3)), np.zeros(4, int))
print("\\n".join(driver.run_serial.inspect_asm().values()))
"""
OTHER_TARGETS = {
    "no AVX": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"},
}
SWEEP = """
import sys
sys.path.insert(0, {tests!r})
from fastsoftmax._kernels.vector import emit
from fastsoftmax._kernels.vector import simd
from fastsoftmax._kernels.vector import tiles
assert emit.VECTOR_BYTES == {vector_bytes}, emit.VECTOR_BYTES
import numpy as np, fastsoftmax as fs
from problems import make_problem, random_shapes
from test_accuracy import assert_accurate
for dtype in (np.float32, np.float64):
    for shape in random_shapes(25, seed=1):
        X, W, y, bias, s = make_problem(*shape, dtype)
        s[0] = 1
        assert_accurate((X, W, y), bias, 0.01, s)
        assert_accurate((np.asfortranarray(X), W, y), None, 0.0, None)
    for n in (1, 3, 10, 40, 400):
        Z = np.random.default_rng(n).standard_normal((70, n)).astype(dtype)
        log_p = fs.reference.log_softmax(Z.astype(np.float64), axis=1)
        tolerances = {{"rtol": 1e-5, "atol": 1e-5}}
        np.testing.assert_allclose(fs.log_softmax(Z, axis=1), log_p, **tolerances)
        np.testing.assert_allclose(fs.softmax(Z, axis=1), np.exp(log_p), **tolerances)
        if n > 1:
            loss, _ = fs.cross_entropy_value_and_grad(Z, np.arange(70) % n)
            truth = -log_p[np.arange(70), np.arange(70) % n].mean()
            np.testing.assert_allclose(loss, truth, **tolerances)
            _, grad = fs.cross_entropy_value_and_grad(Z, np.exp(log_p[::-1]))
            np.testing.assert_allclose(70 * grad, np.exp(log_p) - np.exp(log_p[::-1]), **tolerances)
print("swept")
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Outcomes of programs. The first that is asked for starts all: each compiles on one core."""

    def run(code, environment):
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {}
        for target, environment in OTHER_TARGETS.items():
            vector_bytes = 16 if target == "no AVX" else 32
            code = SWEEP.format(
                tests=str(Path(__file__).parent.parent / "helpers"), vector_bytes=vector_bytes
            )
            running[target] = pool.submit(run, code, environment)
        for dtype in ("float32", "float64"):
            # A fresh cache: machine code loaded from Numba's cache cannot be read back.
            cache = {"NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp(dtype))}
            running[dtype] = pool.submit(run, ASSEMBLY.format(dtype=dtype), cache)
        yield lambda name: running[name].result()


@pytest.mark.skipif(not emit.HAS_FMA, reason="the target has no fused multiply-add")
@pytest.mark.parametrize(("dtype", "suffix"), [("float32", "ps"), ("float64", "pd")])
def test_hot_loops_are_packed_fma_without_calls(dtype, suffix, outcome):
    result = outcome(dtype)
    assert result.returncode == 0, result.stderr
    assembly = result.stdout
    packed = re.findall(rf"vfn?m(?:add|sub)\d*{suffix}\b|\bfmla\s", assembly)
    assert len(packed) > 24 * emit.HEIGHT
    scalar = re.findall(r"vfn?m(?:add|sub)\d*s[sd]\b", assembly)
    assert len(scalar) < len(packed) / 50
    called = set(re.findall(r"(?:call\w*|bl)\s+\*?(\S+)|movabsq\s+\$(\w+),", assembly))
    names = {name for pair in called for name in pair}
    assert not names & {"exp", "expf", "log", "logf", "fma", "fmaf"}


@pytest.mark.skipif("x86_64" not in emit.TRIPLE, reason="the targets tried are x86 ones")
@pytest.mark.parametrize("target", OTHER_TARGETS)
def test_other_x86_targets(target, outcome):
    if target == "AVX2" and not {"avx2", "fma"} <= emit.FEATURES:
        pytest.skip("this CPU has no AVX2")
    result = outcome(target)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "swept"
