"""softmax, log_softmax and logsumexp in NumPy alone: what the kernels do not take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Axis = int | tuple[int, ...] | None


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Dtype of logsumexp, as in SciPy: integers and bool become float64."""
    return np.dtype(np.float64) if dtype.kind in "iub" else dtype.newbyteorder("=")


def exp_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Dtype of softmax, as in SciPy that of np.exp: int8 becomes float16, int64 float64."""
    if dtype.kind in "iub":
        return np.exp(np.empty(0, dtype)).dtype
    return dtype.newbyteorder("=")


def normalize_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Sorted non-negative axes; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(np.lib.array_utils.normalize_axis_tuple(axis, ndim)))


def softmax(x: Any, axis: Axis) -> Any:
    """e^(x - max) over its sum."""
    x = np.asarray(x)
    x = x.astype(exp_dtype(x.dtype), copy=False)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - np.amax(x, axis=axis, keepdims=True))
        return e / np.sum(e, axis=axis, keepdims=True)


def log_softmax(x: Any, axis: Axis) -> Any:
    """X - max - log of the sum of e^(x - max)."""
    x = np.asarray(x)
    x = x.astype(exp_dtype(x.dtype), copy=False)
    top = np.amax(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shifted = x - top
        return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def logsumexp(a: Any, axis: Axis, b: Any, keepdims: bool, return_sign: bool) -> Any:
    """Log Σ b·e^a; the terms of the largest real part are summed apart, so that log1p applies."""
    dtype = sum_dtype(np.result_type(*(_typed(value) for value in (a, b) if value is not None)))
    a = np.asarray(a).astype(dtype, copy=False)
    weight = None
    if b is not None:
        a, weight = np.broadcast_arrays(a, np.asarray(b).astype(dtype, copy=False))
        a = np.where(weight == 0, -np.inf, a)  # infinite or NaN, it adds nothing
    a = np.atleast_1d(a)
    axes = normalize_axes(axis, a.ndim)
    with np.errstate(all="ignore"):
        top = np.max(a.real, axis=axes, keepdims=True, initial=-np.inf)
        shift = np.where(np.isfinite(top), top, 0)
        terms = np.exp(a - shift)
        if weight is not None:
            terms = weight * terms
        largest = (a.real == top) & np.isfinite(top)
        head = np.sum(np.where(largest, terms, 0), axis=axes, keepdims=True)
        rest = np.sum(np.where(largest, 0, terms), axis=axes, keepdims=True)
        out, sign = _log(head, rest)
    out = out + shift.astype(out.real.dtype)
    if return_sign:
        out = out.real
    elif out.dtype.kind == "f":
        out = np.where(sign < 0, np.asarray(np.nan, out.dtype), out)
    results = [out.astype(dtype if out.dtype.kind == dtype.kind else out.dtype), sign.astype(dtype)]
    if not keepdims:
        results = [r.squeeze(axes) for r in results]
    return tuple(r[()] for r in results) if return_sign else results[0][()]


def _typed(value: Any) -> Any:
    """Give a Python number as it is: beside arrays its type does not count."""
    return value if isinstance(value, int | float | complex) else np.asarray(value)


def _log(head: Array, rest: Array) -> tuple[Array, Array]:
    """log|head + rest| (complex: the logarithm) and the sign or phase."""
    total = head + rest
    ratio = rest / np.where(head == 0, 1, head)
    plain = (head == 0) | ~np.isfinite(ratio)
    if total.dtype.kind == "c":
        out = np.where(plain, np.log(total), np.log(head) + np.log1p(ratio))
        turn = np.round(out.imag / (2 * np.pi)) * (2 * np.pi)
        magnitude = np.abs(total)
        return out - 1j * turn, np.where(magnitude == 0, 0, total / magnitude)
    # 1 + ratio is negative where head and total differ in sign.
    log1p = np.log1p(np.where(ratio < -1, -2 - ratio, ratio))
    out = np.where(plain, np.log(np.abs(total)), np.log(np.abs(head)) + log1p)
    return out, np.sign(total)
