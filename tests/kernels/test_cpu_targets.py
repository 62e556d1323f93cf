"""What the compiler makes of the kernels, for this CPU and for others."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastsoftmax._kernels.vector import emit

ASSEMBLY = """
import numpy as np, fastsoftmax as fs
from fastsoftmax._kernels.linear.slots import run_slots
fs.linear_cross_entropy(np.ones((4, 3), np.{dtype}), np.ones((2, 3)), np.zeros(4, int))
print("\\n".join(run_slots.inspect_asm().values()))
"""
OTHER_TARGETS = {
    "no AVX": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"},
}
SWEEP = """
import sys
sys.path[:0] = {folders!r}
from fastsoftmax._kernels.vector import emit
assert emit.VECTOR_BYTES == {vector_bytes}, emit.VECTOR_BYTES
import numpy as np, fastsoftmax as fs
from problems import make_problem, random_shapes
from test_functional_accuracy import assert_accurate
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


pytestmark = pytest.mark.slow  # each compiles the kernels anew


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Outcomes of programs by name. The first that is asked for starts all, one on each core."""
    tests = Path(__file__).parent.parent
    folders = [str(tests), str(tests / "helpers")]

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
            code = SWEEP.format(folders=folders, vector_bytes=vector_bytes)
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
