"""The package as it is imported: names, laziness, missing extras, no JIT."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastsoftmax


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_public_name_exists():
    for name in fastsoftmax.__all__:
        assert getattr(fastsoftmax, name) is not None
    assert set(fastsoftmax.__all__) <= set(dir(fastsoftmax))
    with pytest.raises(AttributeError, match="no_such_name"):
        fastsoftmax.no_such_name  # noqa: B018


def test_import_is_light():
    heavy = "{'numba', 'numpy', 'scipy', 'sklearn', 'torch', 'dask', 'pandas'}"
    result = run_python(f"import sys, fastsoftmax; print(sorted({heavy} & set(sys.modules)))")
    assert result.stdout.strip() == "[]"


def test_reference_imports_numpy_alone():
    result = run_python(
        "import sys, fastsoftmax.reference;"
        "print(sorted({'numba', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    assert result.stdout.strip() == "[]"


def test_without_jit_the_reference_runs():
    code = (
        "import numpy as np, fastsoftmax as fs, sys;"
        "X = np.eye(3); obj = fs.SoftmaxObjective(X, [0, 1, 2]);"
        "print(round(obj.value(obj.x0), 6), round(fs.linear_cross_entropy(X, X, [0, 1, 2]), 6),"
        "'fastsoftmax._kernels.linear.slots' in sys.modules)"
    )
    result = run_python(code, NUMBA_DISABLE_JIT="1")
    assert result.stdout.split() == ["1.098612", "0.551445", "False"], result.stderr


@pytest.mark.parametrize(
    ("missing", "module", "extra"),
    [("sklearn", "linear_model", "train"), ("torch", "torch", "torch")],
)
def test_missing_extra_is_named(missing, module, extra):
    code = f"import sys; sys.modules[{missing!r}] = None; import fastsoftmax.{module}"
    result = run_python(code)
    assert f'pip install "fastsoftmax[{extra}]"' in result.stderr


@pytest.mark.slow
def test_kernels_run_without_a_cache_directory():
    # What a read-only installation looks like to Numba: no locator takes the file.
    code = (
        "import numba.core.caching as c; c.CacheImpl._locator_classes = [];"
        "import numpy as np, fastsoftmax as fs;"
        "print(round(fs.linear_cross_entropy(np.eye(2), np.zeros((2, 2)), [0, 1]), 6))"
    )
    result = run_python(code)
    assert result.stdout.strip() == "0.693147", result.stderr


def test_an_edit_in_any_kernel_source_drops_the_cache():
    from fastsoftmax._kernels import cache
    from fastsoftmax._kernels.linear.slots import run_slots

    files = run_slots._cache._cache_file
    assert isinstance(files, cache.KernelCacheFiles)
    assert files.seal.startswith(cache.source_stamp().encode())


def test_after_warmup_the_common_calls_compile_nothing():
    import scipy.sparse as sp

    from fastsoftmax._kernels.algebra.gram import add_gram
    from fastsoftmax._kernels.linear.finish import finish_slabs
    from fastsoftmax._kernels.linear.panels import pack_panels
    from fastsoftmax._kernels.linear.shared import add_shared, finish_shared, run_shared_forward
    from fastsoftmax._kernels.linear.slots import run_slots
    from fastsoftmax._kernels.rows.columns import run_columns
    from fastsoftmax._kernels.rows.last_axis import run_chunks, run_flat_rows
    from fastsoftmax.linear_model import LogisticRegression

    kernels = (add_gram, add_shared, finish_shared, finish_slabs, pack_panels, run_chunks,
               run_columns, run_flat_rows, run_shared_forward, run_slots)  # fmt: skip
    fastsoftmax.warmup()
    before = [len(kernel.overloads) for kernel in kernels]
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        X, y = rng.standard_normal((3000, 20)).astype(dtype), rng.integers(0, 3, 3000)
        LogisticRegression().fit(X, y)
        LogisticRegression().fit(sp.csr_array(X), y)
        fastsoftmax.linear_cross_entropy_value_and_grad(
            np.ones((300, 700), dtype), np.ones((500, 700), dtype), np.zeros(300, np.int64)
        )
        fastsoftmax.linear_softmax(X, np.ones((3, 20), dtype))
        fastsoftmax.softmax(X, axis=1)
        fastsoftmax.log_softmax(X.T, axis=0)
        fastsoftmax.logsumexp(X.reshape(2, -1), axis=1)
        fastsoftmax.cross_entropy_value_and_grad(X, y)
        fastsoftmax.cross_entropy(X.reshape(30, -1), y[:30])
    assert [len(kernel.overloads) for kernel in kernels] == before


def test_warmup_refuses_unknown_kernels():
    with pytest.raises(ValueError, match="kernels: expected a tuple of dense, sparse"):
        fastsoftmax.warmup(kernels=("dens",))
