"""The package as it is imported: names, laziness, missing extras, no JIT."""

import os
import subprocess
import sys

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


def test_missing_extra_is_named():
    code = "import sys; sys.modules['sklearn'] = None; import fastsoftmax.linear_model"
    result = run_python(code)
    assert 'pip install "fastsoftmax[train]"' in result.stderr


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
