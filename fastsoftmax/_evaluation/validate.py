"""Every cast, check and error message, once: one function per argument."""

import contextlib
import math
import operator
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastsoftmax._evaluation.csr import CSR, as_csr, is_sparse
from fastsoftmax.reference import Array

_WIDE_INTEGERS = ("i4", "i8", "u4", "u8")


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Put before the messages of errors where they were found."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from error


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is ml_dtypes' bfloat16; to ask for its name alone takes a microsecond."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def compute_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """float32 or float64: what data of ``dtype`` is computed in."""
    kind = f"{dtype.kind}{dtype.itemsize}"
    small = dtype.kind in "iu" and dtype.itemsize <= 2
    if kind in ("f4", "f2", "b1") or small or is_bfloat16(dtype):
        return np.dtype(np.float32)
    if kind == "f8" or kind in _WIDE_INTEGERS:
        return np.dtype(np.float64)
    raise TypeError(
        f"{name}: expected real numbers (bfloat16, float16 to float64, integers or bool), got "
        f"dtype {dtype}"
    )


def as_array(value: Any, name: str, ndim: int, shape: str) -> Array:
    """``value`` as an array of ``ndim`` dimensions, without a copy where it already is one."""
    array = _converted(value, name, shape)
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def _of_shape(value: Any, name: str, **lengths: int) -> Array:
    """``value`` as an array of real numbers with dimensions of these names and lengths."""
    expected = tuple(lengths.values())
    if type(value) is np.ndarray and value.shape == expected:
        compute_dtype(value.dtype, name)
        return value  # at once: the words of an error take a microsecond
    sizes = [f"{of} = {length}" for of, length in lengths.items()]
    shape = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
    array = as_array(value, name, len(lengths), shape)
    compute_dtype(array.dtype, name)
    if array.shape != expected:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def as_targets(y: Any) -> Array:
    """``y`` as an array, of labels or of target rows."""
    array = _converted(y, "y", "(n_samples,) or (n_samples, n_classes)")
    return array.astype(np.float32) if is_bfloat16(array.dtype) else array


def _converted(value: Any, name: str, shape: str) -> Array:
    """Return ``value`` as an array; anything that NumPy or DLPack takes."""
    if type(value) is np.ndarray:
        return value
    if is_sparse(value):
        raise TypeError(f"{name}: expected a dense array, got {type(value).__name__}")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name}: expected no masked values; fill them in, or leave rows out")
    try:
        value = view_halves(value)
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            value = np.from_dlpack(value)
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:  # the last two: torch's
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: expected an array of shape {shape}, got {error}") from None


def view_halves(value: Any) -> Any:
    """View a bfloat16 tensor of torch's as an array of ml_dtypes' bfloat16, which NumPy lacks.

    Everything else is returned as it is, tensors that NumPy may not look at among it.
    """
    if type(value) is np.ndarray or str(getattr(value, "dtype", None)) != "torch.bfloat16":
        return value
    if value.requires_grad:  # NumPy refuses it, and says why
        return value
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError(
            'bfloat16 tensors need ml_dtypes: pip install "fastsoftmax[torch]"'
        ) from None
    return value.view(sys.modules["torch"].int16).numpy().view(bfloat16)


def as_features(X: Any, *, empty: bool = False) -> Array | CSR:
    """X (N, D) of a dtype that can be computed with; D, and unless ``empty`` N, at least 1."""
    array: Any = as_csr(X, "X") if is_sparse(X) else as_array(X, "X", 2, "(n_samples, n_features)")
    compute_dtype(array.dtype, "X")
    if array.shape[1] == 0 or (len(array) == 0 and not empty):
        raise ValueError(f"X: expected at least one row and one feature, got shape {array.shape}")
    checked: Array | CSR = array
    return checked


def as_weights(W: Any, n_features: int, dtype: npt.DTypeLike) -> Array:
    """W (K, D), K at least 2, in C order and the compute dtype."""
    array = as_array(W, "W", 2, "(n_classes, n_features)")
    compute_dtype(array.dtype, "W")
    if array.shape[1] != n_features or array.shape[0] < 2:
        raise ValueError(
            f"W: expected shape (n_classes >= 2, n_features = {n_features}), got {array.shape}"
        )
    return _ready(array, dtype)


def _ready(array: Array, dtype: npt.DTypeLike) -> Array:
    """Return an array as kernels take it; writeable, as Numba compiles anew for read-only ones."""
    if array.dtype == dtype and array.flags.carray:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return np.require(array, dtype, ["C", "A", "W"])


def as_bias(bias: Any, n_classes: int, dtype: npt.DTypeLike) -> Array | None:
    """Bias (K,) in the compute dtype, or None."""
    if bias is None:
        return None
    return _ready(_of_shape(bias, "bias", n_classes=n_classes), dtype)


def as_labels(
    y: Any, n_rows: int, n_classes: int | None, ignore_index: int | None = None
) -> tuple[Array, Array | None]:
    """Integer labels (N,) in [0, K), as contiguous int64, and which rows are to be ignored."""
    array = as_array(y, "y", 1, f"(n_samples = {n_rows},)")
    if array.dtype.kind not in "iub":
        raise TypeError(f"y: expected integer class labels, got dtype {array.dtype}")
    if array.shape != (n_rows,):
        raise ValueError(f"y: expected shape (n_samples = {n_rows},), got {array.shape}")
    ignored = None
    if ignore_index is not None:
        ignored = array == _as_integer(ignore_index, "ignore_index")
        if ignored.any():
            array = np.where(ignored, 0, array)
        else:  # weights of ones would take longer than the kernels where classes are few
            ignored = None
    # Read as unsigned numbers, negative labels are huge, so that one pass finds labels at both ends
    # of the range. The same goes for a uint64 above the range of int64.
    labels = array
    if array.dtype != np.int64 or not array.flags.carray:
        labels = np.require(array, requirements=["C", "A"]).astype(np.int64, copy=False)
    largest = int(labels.view(np.uint64).max(initial=0))
    if largest >= (1 << 31 if n_classes is None else n_classes):
        low, high = int(array.min()), int(array.max())
        limit = "n_classes" if n_classes is None else n_classes
        raise ValueError(f"y: expected labels in [0, {limit}), got labels from {low} to {high}")
    return labels, ignored


def as_probabilities(y: Array, n_rows: int, n_classes: int, dtype: npt.DTypeLike) -> Array:
    """Non-negative, finite target rows (N, K) in C order and the compute dtype."""
    if y.dtype.kind != "f":
        raise TypeError(f"y: expected float target rows or integer labels (N,), got {y.dtype}")
    return _as_nonnegative(y, "y", "target rows", dtype, n_samples=n_rows, n_classes=n_classes)


def as_class_weight(class_weight: Any, n_classes: int, dtype: npt.DTypeLike) -> Array:
    """Finite, non-negative weights (K,) in the compute dtype; ones for None."""
    if class_weight is None:
        return np.ones(n_classes, dtype)
    return _as_nonnegative(class_weight, "class_weight", "weights", dtype, n_classes=n_classes)


def as_sample_weight(sample_weight: Any, n_rows: int, dtype: npt.DTypeLike) -> Array | None:
    """Finite, non-negative weights (N,) in the compute dtype, or None."""
    if sample_weight is None:
        return None
    return _as_nonnegative(sample_weight, "sample_weight", "weights", dtype, n_samples=n_rows)


def _as_nonnegative(value: Any, name: str, what: str, dtype: npt.DTypeLike, **shape: int) -> Array:
    """Finite numbers ≥ 0 as a contiguous array of the compute dtype, in which they fit."""
    array = _of_shape(value, name, **shape)
    # min and max are NaN where any number is.
    if array.size and not (array.min() >= 0 and array.max() < np.inf):
        raise ValueError(f"{name}: expected finite, non-negative {what}")
    with np.errstate(over="ignore"):
        cast = np.require(array, dtype, ["C", "A"])
    if cast.dtype != array.dtype and cast.size and not cast.max() < np.inf:
        raise ValueError(
            f"{name}: expected numbers that {cast.dtype}, the precision of the features, can hold, "
            f"got {array.max():.3g}"
        )
    return cast


def as_strength(l2: Any, name: str = "l2") -> float:
    """Return a finite, non-negative float."""
    try:
        if isinstance(l2, (str, bytes)):
            raise TypeError
        value = float(l2)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(l2).__name__}") from None
    except OverflowError:
        raise ValueError(f"{name}: expected a number that a float can hold") from None
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected a finite number >= 0, got {l2!r}")
    return value


def as_flag(value: Any, name: str) -> bool:
    """Return True or False, of a bool or of 0 and 1."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name}: expected True or False, got {value!r}")


def as_vector(w: Any, size: int, name: str = "w") -> Array:
    """Return a flat parameter vector of ``size`` floats."""
    array = as_array(w, name, 1, f"({size},)")
    compute_dtype(array.dtype, name)
    if array.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), got {array.shape}")
    return array


def as_axis(axis: Any, ndim: int) -> Any:
    """Return None, an integer or a tuple of integers, within ``ndim`` dimensions."""
    if axis is None:
        return None
    try:
        given = axis if isinstance(axis, tuple) else (axis,)
        axes = tuple(operator.index(i) for i in given)
    except TypeError:
        raise TypeError(
            f"axis: expected an integer, a tuple of integers or None, got {axis!r}"
        ) from None
    if ndim and not all(-ndim <= i < ndim for i in axes):
        raise np.exceptions.AxisError(f"axis: {axis} is out of bounds for {ndim} dimensions")
    return axes if isinstance(axis, tuple) else axes[0]


def check_reduction(reduction: Any, *, gradient: bool = False) -> None:
    """Refuse what is none of the three reductions, and "none" where a gradient is computed."""
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction: expected "mean", "sum" or "none", got {reduction!r}')
    if gradient and reduction == "none":
        raise ValueError('reduction: expected "mean" or "sum" where a gradient is computed')


def as_count(n: Any, name: str, at_least: int) -> int:
    """Return an integer not below ``at_least``, nor above what an array can have."""
    value = _as_integer(n, name)
    if value >= 1 << 31:
        raise ValueError(f"{name}: expected an integer below 2^31, got {value}")
    if value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value}")
    return value


def _as_integer(n: Any, name: str) -> int:
    """Return an integer, of any type that is one."""
    try:
        return operator.index(n)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(n).__name__}") from None


def check_out(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *, contiguous: bool = False
) -> None:
    """Refuse an ``out`` that is not a writeable array of the result's shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: expected an ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out: expected shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise TypeError(f"out: expected dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writeable array, got a read-only one")
    extent = out.itemsize  # of the dimensions with smaller strides: the next one must step over it
    for stride, length in sorted(zip(map(abs, out.strides), out.shape, strict=True)):
        if length > 1 and out.size:
            if stride < extent:
                raise ValueError("out: expected an array whose elements lie apart in memory")
            extent += (length - 1) * stride
    if contiguous and not out.flags.c_contiguous:
        raise ValueError("out: expected a C-contiguous array")


def check_overlap(out: Array, given: Array, name: str) -> None:
    """Refuse an ``out`` that shares memory with the input ``given`` and is not the same array."""
    if out is given or not np.may_share_memory(out, given):
        return
    same = out.__array_interface__["data"][0] == given.__array_interface__["data"][0]
    if not (same and out.strides == given.strides) and np.shares_memory(out, given):
        raise ValueError(f"out: expected {name} itself or an array sharing no memory with it")


def check_disjoint(out: Array, given: Any, name: str) -> None:
    """Refuse an ``out`` that may share memory with an input, which may be None."""
    parts = (given.data, given.indices) if isinstance(given, CSR) else (given,)
    if any(part is not None and np.may_share_memory(out, np.asarray(part)) for part in parts):
        raise ValueError(f"out: expected an array sharing no memory with {name}")
