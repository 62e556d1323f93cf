"""Compile the common kernels before they are needed."""

import importlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastsoftmax._evaluation.grams import gram
from fastsoftmax._evaluation.threads import n_threads
from fastsoftmax._kernels import objects
from fastsoftmax.functional import cross_entropy_value_and_grad, linear_cross_entropy_value_and_grad
from fastsoftmax.special import softmax

__all__ = ["KERNELS", "warmup"]


def _dense(dtype: Any) -> None:
    """Loss and gradient of few and of many rows, and what a fit's preconditioner is made of."""
    # Threads share the second problem as one run of blocks, and the third as two.
    for n_rows, n_features, n_classes in ((1, 1, 2), (128, 512, 200), (1100, 512, 200)):
        X, W = np.zeros((n_rows, n_features), dtype), np.zeros((n_classes, n_features), dtype)
        linear_cross_entropy_value_and_grad(X, W, np.zeros(n_rows, np.int64))
    for summed in {np.dtype(dtype), np.dtype(np.float32)}:
        gram(1024, 8, summed, lambda rows, out: out.fill(0))


def _sparse(dtype: Any) -> None:
    """Loss and gradient of a CSR matrix."""
    arrays = {"data": np.ones(2, dtype), "indices": np.arange(2, dtype=np.int32)}
    X = SimpleNamespace(
        format="csr", tocsr=None, shape=(2, 2), indptr=np.arange(3, dtype=np.int32), **arrays
    )  # in place of SciPy's matrix, which may not be installed
    linear_cross_entropy_value_and_grad(X, np.zeros((2, 2), dtype), np.zeros(2, np.int64))


def _softmax(dtype: Any) -> None:
    """softmax, log_softmax and logsumexp of few rows and many, short and long, and of columns."""
    for shape, axis in (
        ((2, 3), 1), ((2, 1000), 1), ((2, 3), 0), ((200_000, 3), 1), ((600, 1000), 1),
    ):  # fmt: skip
        softmax(np.zeros(shape, dtype), axis=axis)


def _losses(dtype: Any) -> None:
    """Cross-entropy of logits, short and long."""
    for n_classes in (3, 1000):
        cross_entropy_value_and_grad(np.zeros((2, n_classes), dtype), np.zeros(2, np.int64))


KERNELS: dict[str, Callable[[Any], None]] = {
    "dense": _dense, "sparse": _sparse, "softmax": _softmax, "losses": _losses,
}  # fmt: skip


def warmup(
    dtypes: tuple[Any, ...] = (np.float32, np.float64), kernels: tuple[str, ...] = tuple(KERNELS)
) -> None:
    """Compile the common kernels, or load them from the disk cache, now.

    Several kinds of kernels are compiled by as many processes at a time as Numba may use threads.
    They leave their results in the cache, from where this process loads them.

    Parameters
    ----------
    dtypes : tuple of dtypes
        Which precisions to prepare: float32, float64, or both.
    kernels : tuple of str
        What to prepare: "dense" (loss, gradient and Hessian products of dense features, and fits),
        "sparse" (those of CSR matrices), "softmax" (softmax, log_softmax
        and logsumexp), "losses" (cross-entropy of logits). By default all of them.

    Raises
    ------
    TypeError
        If ``dtypes`` holds anything but float32 and float64.
    ValueError
        If ``kernels`` holds anything but these names.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.warmup((np.float32,), kernels=("dense",))
    """
    try:
        names = [np.dtype(dtype).name for dtype in dtypes]
    except TypeError:
        names = [""]
    if not set(names) <= {"float32", "float64"}:
        raise TypeError(f"dtypes: expected a tuple of float32 and float64, got {dtypes!r}")
    if isinstance(kernels, str) or not set(kernels) <= set(KERNELS):
        raise ValueError(f"kernels: expected a tuple of {', '.join(KERNELS)}, got {kernels!r}")
    parts = [f"{kernel}:{name}" for kernel in kernels for name in names]
    n_processes = max(min(n_threads(), len(parts)), 1)
    others = [_start("prepare", parts[i::n_processes]) for i in range(1, n_processes)]
    prepare(parts[::n_processes])
    for process in others:
        process.wait()
    prepare(parts)  # what the others have compiled is loaded; what they could not, compiled


def _start(function: str, arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    """Start a process that calls a function of this module with a list of texts."""
    program = f"import sys; from fastsoftmax._warmup import {function}; {function}(sys.argv[1:])"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, env=os.environ | environment)


def prepare(parts: list[str]) -> None:
    """Compile or load some kinds of kernels, such as "dense:float32"."""
    for part in parts:
        kernel, name = part.split(":")
        KERNELS[kernel](name)


# ----------------------------------------------------------------------- object code for the wheel


# What must not depend on the environment of whoever builds: two threads call all kernels.
PLAIN = {
    "FASTSOFTMAX_OBJECTS": "none", "FASTSOFTMAX_THREADS": "team", "NUMBA_NUM_THREADS": "2",
    "NUMBA_DISABLE_JIT": "0", "NUMBA_OPT": "3", "NUMBA_BOUNDSCHECK": "0",
}  # fmt: skip


def make_object_code(levels: str) -> None:
    """Compile the common kernels for "all" levels of x86-64, or this CPU's "own".

    The results go to `objects.FOLDER`. This CPU's kernels are compiled by calling them, and those
    of other levels, which may be beyond this CPU, for the same signatures.
    """
    own = objects.own_level()
    if own is None and levels == "all":
        raise RuntimeError("this CPU has none of the levels, whose kernels are compiled by its own")
    if own is None:
        return
    wanted = [own] if levels == "own" else [own, *(objects.LEVELS.keys() - {own})]
    parts = [f"{kernel}:{name}" for name in ("float32", "float64") for kernel in KERNELS]
    n_processes = max(min(n_threads(), len(parts)), 1)
    with tempfile.TemporaryDirectory() as cache:
        for level in wanted:
            cpu, features = objects.target_of(level)
            environment = PLAIN | {
                "NUMBA_CACHE_DIR": cache, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features,
            }  # fmt: skip
            function = "prepare_and_list" if level == own else "compile_listed"
            processes = [
                _start(function, [cache, str(i), *parts[i::n_processes]], **environment)
                for i in range(n_processes)
            ]
            if any([process.wait() for process in processes]):
                raise RuntimeError(f"{level}: the kernels could not be compiled")
        objects.FOLDER.mkdir(exist_ok=True)
        for path in Path(cache).rglob("*.nbc"):
            shutil.copy(path, objects.FOLDER)


def prepare_and_list(arguments: list[str]) -> None:
    """Prepare some kinds of kernels; list the signatures in a file (folder, its name, kinds)."""
    folder, name, *parts = arguments
    prepare(parts)
    signatures = [(*place, kernel.signatures) for place, kernel in _kernels()]
    Path(folder, name).write_bytes(pickle.dumps(signatures))


def compile_listed(arguments: list[str]) -> None:
    """Compile the signatures that such a file lists."""
    for module, name, signatures in pickle.loads(Path(*arguments[:2]).read_bytes()):
        for signature in signatures:
            getattr(importlib.import_module(module), name).compile(signature)


def _kernels() -> Iterator[tuple[tuple[str, str], Any]]:
    """All kernels that are kept on disk: (module, name), and Numba's dispatcher."""
    for module, content in list(sys.modules.items()):
        if module.startswith("fastsoftmax._kernels."):
            for name, value in vars(content).items():
                is_cached = hasattr(getattr(value, "_cache", None), "_cache_file")
                if is_cached and value.__module__ == module:
                    yield (module, name), value
