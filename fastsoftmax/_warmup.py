"""Compile the common kernels before they are needed."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastsoftmax._evaluation.grams import gram
from fastsoftmax._evaluation.threads import n_threads
from fastsoftmax.functional import cross_entropy_value_and_grad, linear_cross_entropy_value_and_grad
from fastsoftmax.special import softmax

__all__ = ["KERNELS", "warmup"]


def _dense(dtype: Any) -> None:
    """Loss and gradient of few and of many rows, and what a fit's preconditioner is made of."""
    # Threads share the second problem as one run of blocks, and the third as two.
    for n_rows, n_features, n_classes in ((1, 1, 2), (128, 512, 200), (1100, 512, 200)):
        X, W = np.zeros((n_rows, n_features), dtype), np.zeros((n_classes, n_features), dtype)
        linear_cross_entropy_value_and_grad(X, W, np.zeros(n_rows, np.int64))
    gram(1024, 8, dtype, lambda rows, out: out.fill(0))


def _sparse(dtype: Any) -> None:
    """Loss and gradient of a CSR matrix."""
    from scipy.sparse import csr_array

    X = csr_array(np.eye(2, dtype=dtype))
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
        "sparse" (those of CSR matrices, where SciPy is installed), "softmax" (softmax, log_softmax
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
    if importlib.util.find_spec("scipy") is None:
        kernels = tuple(kernel for kernel in kernels if kernel != "sparse")
    parts = [f"{kernel}:{name}" for kernel in kernels for name in names]
    n_processes = max(min(n_threads(), len(parts)), 1)
    program = "import sys; from fastsoftmax._warmup import prepare; prepare(sys.argv[1:])"
    others = [
        subprocess.Popen([sys.executable, "-c", program, *parts[i::n_processes]])
        for i in range(1, n_processes)
    ]
    prepare(parts[::n_processes])
    for process in others:
        process.wait()
    prepare(parts)  # what the others have compiled is loaded; what they could not, compiled


def prepare(parts: list[str]) -> None:
    """Compile or load some kinds of kernels, such as "dense:float32"."""
    for part in parts:
        kernel, name = part.split(":")
        KERNELS[kernel](name)
