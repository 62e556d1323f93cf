"""Every cast, check and error message, once: one function per argument."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_WIDE_INTEGERS = ("i4", "i8", "u4", "u8")


def compute_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """float32 or float64: what data of ``dtype`` is computed in."""
    kind = f"{dtype.kind}{dtype.itemsize}"
    if kind in ("f4", "f2", "b1") or (dtype.kind in "iu" and dtype.itemsize <= 2):
        return np.dtype(np.float32)
    if kind == "f8" or kind in _WIDE_INTEGERS:
        return np.dtype(np.float64)
    raise TypeError(
        f"{name}: expected real numbers (float16 to float64, integers or bool), got dtype {dtype}"
    )


def as_array(value: Any, name: str, ndim: int, shape: str) -> Array:
    """``value`` as an array of ``ndim`` dimensions, without a copy where it already is one."""
    if hasattr(value, "tocsr"):
        raise TypeError(
            f"{name}: sparse matrices are not supported here, got {type(value).__name__}"
        )
    if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array of shape {shape}, got {error}") from None
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def as_features(X: Any) -> Array:
    """X (N, D), N and D at least 1, of a dtype that can be computed with."""
    array = as_array(X, "X", 2, "(n_samples, n_features)")
    compute_dtype(array.dtype, "X")
    if array.size == 0:
        raise ValueError(f"X: expected at least one row and one feature, got shape {array.shape}")
    return array


def as_weights(W: Any, n_features: int, dtype: npt.DTypeLike) -> Array:
    """W (K, D), K at least 2, in C order and the compute dtype."""
    array = as_array(W, "W", 2, "(n_classes, n_features)")
    compute_dtype(array.dtype, "W")
    if array.shape[1] != n_features or array.shape[0] < 2:
        raise ValueError(
            f"W: expected shape (n_classes >= 2, n_features = {n_features}), got {array.shape}"
        )
    return np.ascontiguousarray(array, dtype)


def as_bias(bias: Any, n_classes: int, dtype: npt.DTypeLike) -> Array | None:
    """Bias (K,) in the compute dtype, or None."""
    if bias is None:
        return None
    array = as_array(bias, "bias", 1, f"(n_classes = {n_classes},)")
    compute_dtype(array.dtype, "bias")
    if array.shape != (n_classes,):
        raise ValueError(f"bias: expected shape (n_classes = {n_classes},), got {array.shape}")
    return np.ascontiguousarray(array, dtype)


def as_labels(y: Any, n_rows: int, n_classes: int | None) -> Array:
    """Integer labels (N,) in [0, K), as contiguous int64."""
    array = as_array(y, "y", 1, f"(n_samples = {n_rows},)")
    if array.dtype.kind not in "iub":
        raise TypeError(f"y: expected integer class labels, got dtype {array.dtype}")
    if array.shape != (n_rows,):
        raise ValueError(f"y: expected shape (n_samples = {n_rows},), got {array.shape}")
    # Unsigned, a negative label is a huge one: one pass finds both ends. A uint64 above the
    # int64 range comes out the same way.
    labels = np.ascontiguousarray(array).astype(np.int64, copy=False)
    largest = int(labels.view(np.uint64).max())
    bound = 1 << 31 if n_classes is None else n_classes
    if largest >= bound:
        low, high = int(array.min()), int(array.max())
        limit = "n_classes" if n_classes is None else n_classes
        raise ValueError(f"y: expected labels in [0, {limit}), got labels from {low} to {high}")
    return labels


def as_sample_weight(sample_weight: Any, n_rows: int, dtype: npt.DTypeLike) -> Array | None:
    """Finite, non-negative weights (N,) in the compute dtype, not all zero; or None."""
    if sample_weight is None:
        return None
    array = as_array(sample_weight, "sample_weight", 1, f"(n_samples = {n_rows},)")
    compute_dtype(array.dtype, "sample_weight")
    if array.shape != (n_rows,):
        raise ValueError(
            f"sample_weight: expected shape (n_samples = {n_rows},), got {array.shape}"
        )
    with np.errstate(over="ignore"):
        weights = np.ascontiguousarray(array, dtype)
    # min and max are NaN where any weight is.
    if not (weights.min() >= 0 and weights.max() < np.inf):
        raise ValueError("sample_weight: expected finite, non-negative weights")
    if not weights.any():
        raise ValueError("sample_weight: expected at least one positive weight, got only zeros")
    return weights


def as_strength(l2: Any, name: str = "l2") -> float:
    """Return a finite, non-negative float."""
    try:
        value = float(l2)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(l2).__name__}") from None
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected a finite number >= 0, got {l2!r}")
    return value


def as_vector(w: Any, size: int, name: str = "w") -> Array:
    """Return a flat parameter vector of ``size`` floats."""
    array = as_array(w, name, 1, f"({size},)")
    compute_dtype(array.dtype, name)
    if array.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), got {array.shape}")
    return array


def as_count(n: Any, name: str, at_least: int) -> int:
    """Return an integer not below ``at_least``."""
    try:
        value = operator.index(n)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(n).__name__}") from None
    if value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value}")
    return value


def jit_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT asks for the NumPy reference."""
    from numba.core import config

    return bool(config.DISABLE_JIT)
