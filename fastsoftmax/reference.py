"""The specification in plain NumPy: same names, same signatures, no kernel.

Source of the mathematics: the course note "Derivative of Cross-Entropy Softmax" (CS 584-A, 2021).
With logits Z = X Wᵀ + b, P = softmax(Z) row by row, target rows t and T = Σ_k t_k,

    J      = (1/Σs) Σ_i s_i (T_i·lse(z_i) - ⟨t_i, z_i⟩ + α·lse(z_i)²) + λ‖W‖²
    R_i    = s_i ((T_i + 2α·lse(z_i))·p_i - t_i)
    ∇_W J  = (1/Σs) Rᵀ X + 2λW      ∇_b J = (1/Σs) Rᵀ 1      ∇_X J = (1/Σs) R W

where t = class_weight ∘ ((1 - ε) y + ε/K), and y is a one-hot label or a row of probabilities.
Everything is computed in the dtype of X or of the logits, except the loss, which is summed in
float64. The functions check shapes only as far as NumPy does; `fastsoftmax.functional` is where bad
input is explained.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # for the whole package, as every module may import this one
Axis = int | tuple[int, ...] | None

__all__ = [
    "LinearGrad",
    "cross_entropy",
    "cross_entropy_value_and_grad",
    "linear_argmax",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "linear_log_softmax",
    "linear_softmax",
    "log_softmax",
    "logsumexp",
    "softmax",
]


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


class LinearGrad(NamedTuple):
    """Gradients of `linear_cross_entropy`; None for what was not asked for."""

    weight: Array
    bias: Array | None
    input: Array | None


def softmax(x: npt.ArrayLike, axis: Axis = None, *, out: Array | None = None) -> Array:
    """e^x over its sum along ``axis``, as `scipy.special.softmax`; written to ``out`` if given."""
    x, dtype = _as_exponent(x), exp_dtype(np.asarray(x).dtype)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - np.amax(x, axis=axis, keepdims=True))
        p = e / np.sum(e, axis=axis, keepdims=True)
    return _written(p.astype(dtype, copy=False), out)


def log_softmax(x: npt.ArrayLike, axis: Axis = None, *, out: Array | None = None) -> Array:
    """Logarithm of softmax, exact where softmax underflows, as `scipy.special.log_softmax`."""
    x, dtype = _as_exponent(x), exp_dtype(np.asarray(x).dtype)
    top = np.amax(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shifted = x - top
        result = shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
        return _written(result.astype(dtype, copy=False), out)


def _as_exponent(x: npt.ArrayLike) -> Array:
    """Return what exp is taken of; sums of float16 would overflow at 65,504 terms."""
    array = np.asarray(x)
    dtype = exp_dtype(array.dtype)
    return array.astype(np.float32 if dtype == np.float16 else dtype, copy=False)


def logsumexp(
    a: npt.ArrayLike,
    axis: Axis = None,
    b: npt.ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    """Log Σ b·e^a along ``axis``, as `scipy.special.logsumexp`.

    The terms of the largest real part are summed apart, so that log1p applies to the rest.
    """
    # A Python number stays one: beside arrays its type does not count.
    given = [x if isinstance(x, int | float | complex) else np.asarray(x) for x in (a, b)]
    dtype = sum_dtype(np.result_type(*given[: 1 if b is None else 2]))
    summed = np.float32 if dtype == np.float16 else dtype
    a = np.asarray(a).astype(summed, copy=False)
    weight = None
    if b is not None:
        a, weight = np.broadcast_arrays(a, np.asarray(b).astype(summed, copy=False))
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


def _written(result: Array, out: Array | None) -> Array:
    """Return the result, in ``out`` if there is one."""
    if out is None:
        return result
    out[...] = result
    return out


def _targets(
    y: Any,
    n_classes: int,
    dtype: Any,
    sample_weight: Any,
    class_weight: Any,
    label_smoothing: float,
    ignore_index: int | None,
) -> tuple[Array, Array, Array]:
    """Return row scales s (N,), target rows t (N, K), and what each row adds to a mean's Σs."""
    y = np.asarray(y)
    s = np.ones(len(y), dtype) if sample_weight is None else np.asarray(sample_weight, dtype)
    w = np.ones(n_classes, dtype) if class_weight is None else np.asarray(class_weight, dtype)
    counted = s
    if y.ndim == 1:
        if ignore_index is not None:
            s = np.where(y == ignore_index, dtype(0), s)
            y = np.where(y == ignore_index, 0, y)
        counted = s * w[y]
        labels, y = y, np.zeros((len(y), n_classes), dtype)
        y[np.arange(len(y)), labels] = 1
    smoothing = float(label_smoothing)  # a NumPy number would be subtracted in its own precision
    t = w * (dtype(1 - smoothing) * y.astype(dtype) + dtype(smoothing / n_classes))
    return s, t, counted


def row_losses_and_gradients(Z: Array, s: Array, t: Array, alpha: float) -> tuple[Array, Array]:
    """Return s_i·(T_i·lse - ⟨t_i, z_i⟩ + α·lse²) in float64 and R (N, K) in Z's dtype."""
    dtype = Z.dtype.type
    T = t.sum(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        m = Z.max(axis=1, keepdims=True)
        E = np.exp(Z - m)
        sums = E.sum(axis=1)
        log_sums = np.log(sums.astype(np.float64))
        lse = m[:, 0] + log_sums
        # A target of zero times an infinite logit is 0.
        rows = T * log_sums + np.where(t == 0, dtype(0), t * (m - Z)).sum(axis=1)
        factor = (s * T / sums).astype(dtype)
        if alpha:
            rows = rows + alpha * lse**2
            factor = (s * (T + 2 * alpha * lse) / sums).astype(dtype)
        R = E * factor[:, None] - s[:, None] * t
        # A row of scale zero contributes nothing, whatever its logits are.
        return np.where(s == 0, 0.0, s * rows), np.where(s[:, None] == 0, dtype(0), R)


def cross_entropy(logits: Array, y: Array, **options: Any) -> Any:
    """Return the loss of logits (N, K); see `fastsoftmax.cross_entropy` for the options."""
    return cross_entropy_value_and_grad(logits, y, **options)[0]


def cross_entropy_value_and_grad(
    logits: Array,
    y: Array,
    *,
    sample_weight: Array | None = None,
    class_weight: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    lse_square_scale: float = 0.0,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[Any, Array]:
    """Return loss and gradient (N, K); see `fastsoftmax.cross_entropy_value_and_grad`."""
    Z = _as_computed(logits)
    options = (sample_weight, class_weight, label_smoothing, ignore_index)
    s, t, counted = _targets(y, Z.shape[1], Z.dtype.type, *options)
    rows, R = row_losses_and_gradients(Z, s, t, lse_square_scale)
    total = 1.0
    if reduction == "mean":
        total = float(counted.sum(dtype=np.float64))
        if total == 0:
            raise ValueError("reduction: a mean over nothing")
    loss = rows if reduction == "none" else float(rows.sum()) / total
    return loss, _written(R / R.dtype.type(total), out)


def linear_cross_entropy(
    X: Array, W: Array, y: Array, *, bias: Array | None = None, l2: float = 0.0, **options: Any
) -> Any:
    """Return J(W, b); see `fastsoftmax.linear_cross_entropy`."""
    W = np.asarray(W, _as_computed(X[:0]).dtype)
    loss = cross_entropy(linear_logits(X, W, bias), y, **options)
    return loss + _penalty(l2, W) if l2 else loss


def linear_cross_entropy_value_and_grad(
    X: Array,
    W: Array,
    y: Array,
    *,
    bias: Array | None = None,
    l2: float = 0.0,
    input_grad: bool = False,
    **options: Any,
) -> tuple[float, LinearGrad]:
    """J(W, b) and its gradient; see `fastsoftmax.linear_cross_entropy_value_and_grad`."""
    X = _as_computed(X)
    W = np.asarray(W, X.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        loss, R = cross_entropy_value_and_grad(linear_logits(X, W, bias), y, **options)
        weight = R.T @ X + X.dtype.type(2 * l2) * W
        return loss + _penalty(l2, W), LinearGrad(
            weight, None if bias is None else R.sum(axis=0), R @ W if input_grad else None
        )


def _as_computed(x: Any) -> Any:
    """Convert X to the dtype that is computed in."""
    if hasattr(x, "tocsr"):
        return x.astype(_as_computed(x.data[:0]).dtype)
    x = np.asarray(x)
    return np.asarray(x, np.float32 if np.result_type(x, np.float32) == np.float32 else np.float64)


def linear_logits(X: Any, W: Array, bias: Any) -> Array:
    """Z = X Wᵀ + b in the dtype of W."""
    with np.errstate(invalid="ignore", over="ignore"):
        X = X.astype(W.dtype) if hasattr(X, "tocsr") else np.asarray(X, W.dtype)
        Z: Array = X @ W.T
        return Z if bias is None else Z + np.asarray(bias, W.dtype)


def linear_softmax(X: Any, W: Any, *, bias: Any = None, out: Array | None = None) -> Array:
    """Class probabilities of a linear softmax model."""
    return np.asarray(softmax(_logits_of(X, W, bias), axis=1, out=out))


def linear_log_softmax(X: Any, W: Any, *, bias: Any = None, out: Array | None = None) -> Array:
    """Logarithms of the probabilities of a linear softmax model."""
    return np.asarray(log_softmax(_logits_of(X, W, bias), axis=1, out=out))


def linear_argmax(X: Any, W: Any, *, bias: Any = None) -> Array:
    """Name the most probable class of every row."""
    return np.asarray(_logits_of(X, W, bias).argmax(axis=1), np.int64)


def _logits_of(X: Any, W: Any, bias: Any) -> Array:
    """Z = X Wᵀ + b in the dtype that X is computed in."""
    X = _as_computed(X)
    return linear_logits(X, np.asarray(W, X.dtype), bias)


def _penalty(l2: float, W: Array) -> float:
    return float(l2) * float(np.square(W, dtype=np.float64).sum())
