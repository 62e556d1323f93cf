"""scipy.special's softmax, log_softmax and logsumexp: change the import and keep the script."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import fastsoftmax.reference as reference
from fastsoftmax._evaluation import validate
from fastsoftmax._evaluation.backend import jit_disabled
from fastsoftmax._evaluation.docs import fill_in
from fastsoftmax._kernels.modes import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from fastsoftmax.reference import Array

Axis = int | tuple[int, ...] | None

__all__ = ["log_softmax", "logsumexp", "softmax"]

# What is computed in which precision: float16 in float32, integers in float64.
_COMPUTED: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(code): np.dtype("f" if code in "ef" else "d") for code in "efd?bBhHiIlLqQ"
}


_shared = fill_in(
    parameters="""
    Parameters
    ----------
    x : array_like
        Input of any shape and dtype; real floats and integers run in the kernels, anything else
        that SciPy takes in NumPy.
    axis : int or tuple of ints, optional
        Axis of the sum; by default the whole array.
    out : ndarray, optional
        Where to write the result: of its shape and dtype, and either ``x`` itself or disjoint.

    Returns
    -------
    ndarray or scalar
        Of x's shape. float16, float32 and float64 keep their dtype; bool and integers give the
        dtype of np.exp, as in SciPy: 8 bits float16, 16 bits float32, wider ones float64.

    Raises
    ------
    ValueError, TypeError
        Where ``axis`` or ``out`` does not fit."""
)


@_shared
def softmax(x: npt.ArrayLike, axis: Axis = None, *, out: Array | None = None) -> Array:
    r"""Softmax: :math:`e^{x_i} / \sum_j e^{x_j}` along an axis.

    <parameters>

    References
    ----------
    Signature and behaviour follow `scipy.special.softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softmax
    >>> softmax(np.log([[1.0, 3.0], [2.0, 2.0]]), axis=1)
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
    """
    return _elementwise(SOFTMAX, x, axis, out)


@_shared
def log_softmax(x: npt.ArrayLike, axis: Axis = None, *, out: Array | None = None) -> Array:
    r"""Logarithm of softmax: :math:`x_i - \log \sum_j e^{x_j}`, exact where softmax underflows.

    <parameters>

    References
    ----------
    Signature and behaviour follow `scipy.special.log_softmax`.

    Examples
    --------
    >>> from fastsoftmax import log_softmax
    >>> log_softmax([0.0, -1000.0])
    array([    0., -1000.])
    """
    return _elementwise(LOG_SOFTMAX, x, axis, out)


def logsumexp(
    a: npt.ArrayLike,
    axis: Axis = None,
    b: npt.ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    r"""Logarithm of a sum of exponentials: :math:`\log \sum_j b_j e^{a_j}`.

    Parameters
    ----------
    a : array_like
        Input; complex, too.
    axis : int or tuple of ints, optional
        Axis or axes of the sum; by default the whole array.
    b : array_like, optional
        Factors of the exponentials, broadcast against ``a``; zeros and negative ones are allowed.
    keepdims : bool, default False
        Whether the axes summed over stay, with length one.
    return_sign : bool, default False
        Whether to return the logarithm of the sum's magnitude and its sign (for complex input its
        phase); otherwise the logarithm of a negative sum is NaN.

    Returns
    -------
    res : ndarray or scalar
        The logarithms; float16, float32 and float64 keep their dtype, bool and integers give
        float64, as in SciPy.
    sgn : ndarray or scalar
        The signs, with ``return_sign``.

    Raises
    ------
    ValueError
        Where ``axis`` does not fit, or ``b`` does not broadcast against ``a``.

    References
    ----------
    Signature and behaviour follow `scipy.special.logsumexp`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import logsumexp
    >>> round(float(logsumexp([1000.0, 1000.0])), 6)  # 1000 + log 2
    1000.693147
    """
    array = _as_numbers(a, "a")
    if b is None and not (keepdims or return_sign) and _is_direct(array, axis):
        kept = [] if axis is None else list(array.shape)
        if isinstance(axis, int):
            del kept[axis]
        result = np.empty(kept, array.dtype)
        _call_direct(array, result, axis, LOGSUMEXP)
        return result[()]
    axis = validate.as_axis(axis, array.ndim)
    keepdims = validate.as_flag(keepdims, "keepdims")
    return_sign = validate.as_flag(return_sign, "return_sign")
    if b is not None or return_sign or not _fast(array, axis):
        return _by_reference("a", reference.logsumexp, a, axis, b, keepdims, return_sign)
    axes = reference.normalize_axes(axis, array.ndim)
    result = _by_kernel(array, axes, LOGSUMEXP)
    result = result.astype(reference.sum_dtype(array.dtype), copy=False)
    return (result if keepdims else result.squeeze(axes))[()]


def _as_numbers(x: npt.ArrayLike, name: str) -> Array:
    """Return x as an array; text, times and records are refused."""
    array = np.asarray(x)
    if array.dtype.kind in "TUSMmV":
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}")
    return array


def _by_reference(argument: str, function: Any, *arguments: Any) -> Any:
    """Call a function of the reference; what NumPy cannot compute is an error of ``argument``."""
    try:
        return function(*arguments)
    except np.exceptions.AxisError:
        raise
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{argument}: {error}") from None


# Up to here the call's own cost shows: few rows take the shortest way to a kernel. After other work
# in the process each function and each line of Python that a call needs comes from memory: at
# (64, 1000) after a product of matrices, softmax took 330 us with all checks, its kernel alone 150.
_DIRECT = 500_000
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@functools.cache
def _kernels() -> Any:
    """Import what runs kernels; None under NUMBA_DISABLE_JIT=1."""
    if jit_disabled():
        return None
    from fastsoftmax._evaluation import rowwise

    return rowwise


def _fast(x: Array, axis: Axis) -> bool:
    """Whether the kernels take it: some real numbers, and at least one axis."""
    if x.size == 0 or x.ndim == 0 or (isinstance(axis, tuple) and not axis):
        return False
    return x.dtype.newbyteorder("=") in _COMPUTED and _kernels() is not None


def _is_direct(x: Array, axis: Axis) -> bool:
    """Whether `_call_direct` takes it: few contiguous floats, one axis or all of them."""
    return (
        0 < x.size <= _DIRECT
        and x.dtype in _FLOATS
        and x.ndim > 0
        and (axis is None or (type(axis) is int and -x.ndim <= axis < x.ndim))
        and x.flags.carray  # writeable, too: Numba compiles anew for read-only arrays
        and _kernels() is not None
    )


def _fits(out: Any, x: Array) -> bool:
    """Whether ``out`` takes a result like x: it is x itself, or shares nothing with it."""
    return out is x or (
        type(out) is np.ndarray
        and out.dtype == x.dtype
        and out.shape == x.shape
        and out.flags.carray
        and not np.may_share_memory(x, out)
    )


def _call_direct(x: Array, out: Array, axis: Axis, mode: int) -> None:
    """Fill ``out`` with the results along an axis, by the kernels that take arrays as they are."""
    kernels = _kernels()
    if isinstance(axis, int) and axis not in (-1, x.ndim - 1):
        kernels.columns(x, out, _around(x, (axis % x.ndim,)), mode)
    else:
        n = x.size if axis is None else x.shape[-1]
        kernels.direct_rows(x.reshape(-1), out.reshape(-1), n, mode)


def _around(x: Array, axes: Sequence[int]) -> tuple[int, int, int]:
    """How many elements lie before some neighbouring axes, in them, and behind them."""
    shape = x.shape
    first, stop = axes[0], axes[-1] + 1
    return math.prod(shape[:first]), math.prod(shape[first:stop]), math.prod(shape[stop:])


def _elementwise(mode: int, x: npt.ArrayLike, axis: Axis, out: Array | None) -> Array:
    """Return softmax or log_softmax of x."""
    array = x if type(x) is np.ndarray else _as_numbers(x, "x")
    if _is_direct(array, axis) and (out is None or _fits(out, array)):
        result = np.empty(array.shape, array.dtype) if out is None else out
        _call_direct(array, result, axis, mode)
        return result
    array = _as_numbers(array, "x")
    if out is not None:
        validate.check_out(out, array.shape, reference.exp_dtype(array.dtype))
        validate.check_overlap(out, array, "x")
    axis = validate.as_axis(axis, array.ndim)
    if _fast(array, axis):
        axes = reference.normalize_axes(axis, array.ndim)
        result = _by_kernel(array, axes, mode, out)
        result = result.astype(reference.exp_dtype(array.dtype), copy=False)
    else:
        function = reference.softmax if mode == SOFTMAX else reference.log_softmax
        result = _by_reference("x", function, array, axis)
    if out is None or result is out:
        return result
    out[...] = result
    return out


def _by_kernel(x: Array, axes: tuple[int, ...], mode: int, out: Array | None = None) -> Array:
    """Run a kernel in its compute dtype; sums keep their axes. The result may be ``out`` itself."""
    kernels = _kernels()
    canonical, shape, order = _canonical(x, axes)
    target_shape: tuple[int, ...] = canonical.shape
    if mode == LOGSUMEXP:
        target_shape = canonical.shape[::2]
        shape = tuple(1 if i in axes else n for i, n in zip(order, shape, strict=True))
    direct = out is not None and out.flags.c_contiguous and out.dtype == canonical.dtype
    if out is not None and direct and order == tuple(range(x.ndim)):
        kernels.reduce_or_map(canonical, out.reshape(target_shape), mode)
        return out
    target = np.empty(target_shape, canonical.dtype)
    kernels.reduce_or_map(canonical, target, mode)
    return target.reshape(shape).transpose(np.argsort(order))


def _canonical(x: Array, axes: tuple[int, ...]) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """``x`` as a contiguous (outer, n, inner) array of a compute dtype.

    Also its shape before that, and the order its axes were put in. One axis of a contiguous array
    is never moved; several are brought together, if need be by a copy.
    """
    order = tuple(range(x.ndim))
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        order = order[::-1]
    places = sorted(map(order.index, axes))
    if places[-1] - places[0] >= len(places):  # apart
        order = tuple(i for i in range(x.ndim) if i not in axes) + axes
        places = sorted(map(order.index, axes))
    x = np.ascontiguousarray(x.transpose(order), _COMPUTED[x.dtype.newbyteorder("=")])
    return x.reshape(_around(x, places)), x.shape, order
